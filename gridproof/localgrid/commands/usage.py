"""What each command of the central service is given: its help, and which options there are.

Names, options and arguments are JAliEn's; help is laid out as JAliEn's commands lay it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from errno import EINVAL

from gridproof.localgrid.commands.answers import Answer, CommandFailed, text

HELP_OPTIONS = frozenset({"-h", "--h", "-help", "--help"})


@dataclass(frozen=True)
class Usage:
    """A command's arguments in words, and its options with what they are for.

    An option with a blank, ``-x <target LFN>``, takes a value; ``hidden`` options are taken, too. ``alone``:
    the command runs without any argument. ``about`` stands below the arguments.
    """

    arguments: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    alone: bool = False
    about: str = ""


def help_text(name: str) -> str:
    """What a command says of itself."""
    usage = USAGES[name]
    if name == "time":
        return f"Usage: time {usage.arguments} "
    lines = ["", f"usage: {name}   {usage.arguments}".rstrip()]
    if usage.about:
        lines += ["", f"{'':20}{usage.about}"]
    if usage.options:
        lines += [
            "",
            "options:",
            *(f"{'':20}{option:<21}  :  {what}" for option, what in usage.options.items()),
        ]
    return "\n".join(lines)


def help_of(name: str) -> Answer:
    """The answer to ``NAME -h``."""
    return text(help_text(name))


def argument_missing(name: str) -> CommandFailed:
    """The answer to a command that needs an argument and has none."""
    return CommandFailed(EINVAL, "Command requires an argument", [{"message": help_text(name)}])


USAGES: dict[str, Usage] = {
    # the catalogue
    "cd": Usage("[dir]", alone=True),
    "pwd": Usage(alone=True),
    "mkdir": Usage(
        "[-options] <directory> [<directory>[,<directory>]]", {"-p": "make parents, too"}, hidden=("-s",)
    ),
    "rmdir": Usage("<directory> [<directory>[,<directory>]]", hidden=("-p", "-v", "-s")),
    "ls": Usage(
        "[-options] [<directory>]",
        {
            "-l": "permissions, owner, size, time",
            "-a": "hidden entries, too",
            "-F": "a slash after directories",
            "-b": "GUIDs instead of names",
            "-c": "absolute names",
            "-H": "sizes in KB, MB, GB",
        },
        hidden=("-bulk",),
        alone=True,
    ),
    "find": Usage(
        "[flags] <path> <pattern>",
        {
            "-a": "hidden files, too",
            "-s": "not sorted",
            "-c": "how many there are",
            "-x <target LFN>": "write an XML collection instead",
            "-d": "directories, too",
            "-w": "permissions, owner, size, time",
            "-h": "with -w: sizes in KB, MB, GB",
            "-j <queueid>": "files of this job",
            "-l <count>": "not more than these",
            "-o <offset>": "leave out the first",
            "-r": "the pattern is a regular expression",
            "-f": "all that is known, as keys",
            "-S <site>": "what is near this site first",
            "-y": "the newest version of each calibration object",
        },
        hidden=("-z",),
    ),
    "toXml": Usage(
        "[-i] [-x xml_file_name] [-a] [-l list_from] [lfns]",
        {
            "-i": "leave out what does not exist",
            "-x <file>": "write the collection to this file of the catalogue",
            "-a": "with -x: add to the collection",
            "-l <file>": "names are in this file, one a line",
        },
    ),
    "cat": Usage("<LFN>"),
    "whereis": Usage(
        "[-options] [<filename>]",
        {
            "-g": "the argument is a GUID",
            "-r": "of a member of an archive: the archive's replicas",
            "-l": "with -r: the archive's LFN, too",
        },
    ),
    "rm": Usage(
        "<LFN> [<LFN>[,<LFN>]]",
        {"-r": "directories with all in them", "-R": "as -r"},
        hidden=("-f", "-i", "-v"),
    ),
    "mv": Usage("<LFN> <newLFN>"),
    "touch": Usage("<LFN> [<LFN>[,<LFN>]]"),
    "type": Usage("<lfn>", hidden=("-z", "-s")),
    "lfn2guid": Usage("<filename>"),
    "guid2lfn": Usage("<GUID>"),
    "access": Usage(
        "[options] <read|write> <lfn> [<specs>]",
        {
            "-s <size>": "of the file that is written",
            "-m <md5>": "of the file that is written",
            "-j <id>": "the job that writes",
            "-f": "read: only from the SEs named",
            "-u": "read: http URLs where there are any",
        },
    ),
    "commit": Usage("<envelope> <size> <lfn> <perm> <expire> <pfn> <se> <guid> <md5>"),
    "chmod": Usage("-R <octal mode> <lfn> [<lfn>...]", {"-R": "all below directories, too"}),
    "chown": Usage("-R <user>[.<group>] <lfn> [<lfn>...]", {"-R": "all below directories, too"}),
    "md5sum": Usage("<filename1> [or guid]"),
    "du": Usage(
        "[-ncs] <path>",
        {"-n": "bytes, not KB, MB, GB", "-c": "collections, too", "-s": "one sum of all paths"},
    ),
    "stat": Usage("[-v] <filename1> [<or uuid>] ...", {"-v": "replicas, too"}),
    "xrdstat": Usage(
        "[-d] [-v] [-s SE1,SE2,...] <filename1> [<or UUID>] ...",
        {"-d": "by content, not by size", "-v": "what is wrong", "-s <SEs>": "only these SEs"},
        hidden=("-i", "-c", "-4", "-6"),
    ),
    "listFilesFromCollection": Usage(
        "[-options] collection", {"-z": "sizes and MD5s, too"}, hidden=("-s", "-v")
    ),
    # jobs
    "submit": Usage("<URL>"),
    "ps": Usage(
        "[-options]",
        {
            "-Fl": "long: site and node, too",
            "-L": "as -Fl",
            "-X": "active jobs, long",
            "-f <states>": "states, their letters, or a: all, r: running, f: failed, d: done, s: split",
            "-u <users>": "jobs of these users",
            "-s <sites>": "jobs at these sites",
            "-n <nodes>": "jobs on these nodes",
            "-m <ids>": "subjobs of these masters",
            "-o <key>": "sorted by this key",
            "-j <ids>": "these jobs",
            "-l <count>": "the last ones",
            "-t [hours]": "changed between so many hours ago, 12,6",
            "-M": "masters only",
            "-A": "all of one's own",
            "-W": "those that wait",
            "-E": "those that failed",
            "-a": "of all users",
            "-jdl [id]": "a job's JDL",
            "-trace [id]": "a job's trace",
            "-id": "ids only",
        },
        hidden=("-F <l>", "-b", "-q [query]"),
        alone=True,
    ),
    "kill": Usage("<jobId> [<jobId>[,<jobId>]]"),
    "resubmit": Usage("<jobid1> [<jobid2>....]"),
    "masterjob": Usage(
        "<jobIDs> [-options]",
        {
            "-status <state>": "subjobs in this state",
            "-id <ids>": "these subjobs",
            "-site <site>": "subjobs at this site",
            "-printid": "the subjobs' ids, too",
            "-printsite": "by site, too",
        },
    ),
    "registerOutput": Usage("<job ID>"),
    "jobListMatch": Usage("[jobId]"),
    "w": Usage(
        about="who has jobs that run or wait",
        options={
            "-a": "most active jobs first",
            "-w": "most waiting jobs first",
            "-r": "the other way round",
        },
        alone=True,
    ),
    "uptime": Usage(alone=True),
    "top": Usage(alone=True),
    "packages": Usage(alone=True),
    # sites and storage
    "df": Usage(alone=True),
    "listSEs": Usage(
        "[-qos filter,by,qos] [-s] [SE name] [SE name] ...",
        {"-qos <qos>": "SEs of this kind", "-s": "a sum, too"},
        hidden=("-v",),
        alone=True,
    ),
    "listSEDistance": Usage(
        "[-site <site name>] [-read|-write] [-qos filter,by,qos]",
        {
            "-site <site>": "seen from this site",
            "-read [lfn]": "for reading; the SEs of this file",
            "-write": "for writing",
            "-qos <qos>": "of this kind",
        },
        alone=True,
    ),
    "listCEs": Usage(
        "[-s] [CE name] [CE name] ...",
        {"-s": "a sum, too", "-p <partitions>": "CEs of these partitions", "-v": "partitions, too"},
        alone=True,
    ),
    "listpartitions": Usage(
        "[-v] [Partition name] [Partition name] ...", {"-v": "their CEs, too"}, alone=True
    ),
    "setSite": Usage("[site name]", alone=True),
    # users
    "whoami": Usage("[-v]", {"-v": "say more"}, alone=True),
    "user": Usage("<user name>", about="Change effective role as specified."),
    "whois": Usage(
        "[account name]",
        {
            "-s": "search user names",
            "-f": "search full names, too",
            "-e": "search e-mail addresses, too",
            "-d": "search certificates' subjects, too",
            "-a": "search all of these",
        },
    ),
    "groups": Usage("[account name]", alone=True),
    "groupmembers": Usage("<group>"),
    "jquota": Usage(
        "list [username] | set <user> <field> <value>",
        about="Limits that are set: maxUnfinishedJobs, maxTotalCpuCost, maxTotalRunningTime.",
    ),
    "fquota": Usage(
        "list [username ...] | set <user> <field> <value>",
        about="Limits that are set: maxNbFiles, maxTotalSize; % means all users.",
    ),
    "token": Usage(
        "[-options]",
        {
            "-u <username>": "for this role",
            "-v <validity>": "days",
            "-t <tokentype>": "user, job, jobagent, host",
            "-jobid <id>": "with -t job",
        },
        hidden=("-hostname <name>",),
        alone=True,
    ),
    # the service
    "time": Usage("<times>  <command> [command_arguments]"),
    "commandlist": Usage(hidden=("-i",), alone=True),
    "ping": Usage(
        options={"-c <count>": "messages", "-s <ms>": "pause between them", "-n": "addresses, not names"},
        alone=True,
    ),
    "version": Usage(alone=True),
}
