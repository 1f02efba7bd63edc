"""What is typed at alienpy's prompt, and what JAliEn makes of it.

Where a line is not among the recorded exchanges, what is expected comes from JAliEn's source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One line typed at the prompt, in a directory prepared like that of the recordings.

    ``{here}``, ``{home}``, ``{done}`` and the like stand for names of the run. ``keys`` are those of all rows
    together ("" = none, None = it does not matter), ``says`` is a pattern that is found in the text for
    people. ``differs`` says how JAliEn would answer otherwise.
    """

    line: str
    code: int = 0
    error: str = ""
    keys: str | None = None
    says: str = ""
    differs: str = ""


# It answers alone, or makes its own of what several commands say.
ALIENPY_S_OWN = re.compile(
    "(SEqos|cat|cert-info|cert-verify|certkey-match|cp|dirs|exec|find2|getCE|getSE|help|home|job[Ii]nfo"
    "|lfn2uri|nonsense|pfn|ping|popd|prompt|pushd|pwd -h|queueinfo|quota|siteJobs|time"
    "|token-(destroy|info|init|verify)|tokenkey-match|version|xrd_(config|ping))\\b"
)

NO_ARGUMENT = "Invalid argument : Command requires an argument"
UNKNOWN_Y = "Invalid argument : y is not a recognized option"

TWO = "2, Command not found or not implemented yet"

NAMES = "name path"
LONG = "permissions user group size ctime name path"
STAT = "lfn type owner gowner perm ctime size md5 guid mtime"
WIDE = "lfn perm owner gowner size ctime guid"
ALL_OF_IT = f"{WIDE} name aclId broken dir entryId expiretime guidtime md5 jobid replicated type"
REPLICA = "seNumber seName pfn"
ENVELOPE = "envelope url guid se tags nSEs md5 size"
JOB = "owner id split priority status name"

SESSION = {
    "whoami": [
        Case(
            "whoami",
            keys="username role roles certificate_expires certificate_dn connected_from homedir",
            says="^gridproof$",
        ),
        Case("whoami -v", says="Username: gridproof\n"),
        Case("whoami -y", 22, UNKNOWN_Y),
    ],
    "pwd": [Case("pwd", keys="pwd", says="^{here}$"), Case("pwd -h")],
    "cd": [
        Case("cd t1", keys=""),
        Case("pwd", says="^{here}t1/$"),
        Case("cd ..", keys=""),
        Case("cd"),
        Case("pwd", says="^{home}$"),
        Case("cd -"),
        Case("pwd", says="^{here}$"),
        Case("cd ~/"),
        Case("cd {here}"),
        Case("cd /nowhere", 2, "No such file or directory", keys=""),
        Case("cd t1/blob", 20, "Not a directory : t1/blob"),
    ],
    "user": [
        Case("user", 22, NO_ARGUMENT, keys=""),
        Case("user gridproof"),
        Case("user guest", 1),
    ],
    "ping": [
        Case("ping", says="3 time"),
        Case("ping 1", says="1 time"),
        Case("ping x", 1, "Unrecognized argument, it should be int type"),
    ],
    "time": [
        Case("time pwd", says="{here}\n>>>ProcessInput time"),
        Case("time ls /nowhere", 2, "No such file or directory : /nowhere"),
        Case("time 3 ls", 1, "ProcessInput:: there was no return object!! Invalid state, contact developer!"),
        Case("time", says="Command format: time"),
    ],
    "version": [Case("version", says="alien.py version: 1.7.0")],
}

FILES = {
    "ls": [
        Case("ls", keys=NAMES),
        Case("ls t1", keys=NAMES),
        Case("ls -l t1", keys=LONG),
        Case("ls -l t1/blob", keys=LONG),
        Case("ls -a", keys=NAMES, says="(?m)^.hidden$"),
        Case("ls -la t1", keys=LONG),
        Case("ls -F t1", keys=NAMES, says="(?m)^o/$"),
        Case("ls -b t1", keys="guid"),
        Case("ls -c t1", keys="", says="{here}t1/blob\n"),
        Case("ls -H t1/blob", keys=LONG, says=" 2.861 MB "),
        Case("ls /nowhere", 2, "No such file or directory : /nowhere", keys=""),
        Case("ls nowhere", 2, "No such file or directory : {here}nowhere", keys=""),
        Case("ls -l t1/*.sh", keys=LONG, says="job.sh\n.*spin.sh"),
        Case("ls t1/none*", 2, "No such file or directory : t1/none*"),
        Case("ls t1 {here}data", keys=NAMES),
        Case("ls t1 /nowhere", 2, "No such file or directory : /nowhere", keys=NAMES),
        Case("ls -y", 22, UNKNOWN_Y),
        Case("ls -h", keys="", says="^usage: ls   .*\n\noptions:\n +-l "),
        Case("ll t1", keys=LONG),
        Case("la t1", keys=NAMES),
        Case("lla t1", keys=LONG),
    ],
    "mkdir": [
        Case("mkdir capdir", keys=""),
        Case("mkdir capdir", keys=""),
        Case("mkdir -p capdir/a/b", keys=""),
        Case("mkdir one two"),
        Case(
            "mkdir one/x/y two/z",
            2,
            "No such file or directory : Could not create directory: one/x/y",
            keys="",
        ),
        Case("ls two", says="^z"),
        Case("mkdir t1/blob", 2, "No such file or directory : Could not create directory: t1/blob"),
        Case(
            "mkdir /local/user/no",
            2,
            "No such file or directory : Could not create directory: /local/user/no",
        ),
        Case("mkdir", 22, NO_ARGUMENT),
        Case("mkdir -y one", 22, UNKNOWN_Y),
    ],
    "touch": [
        Case("touch capdir/empty", keys=""),
        Case("touch capdir/empty", keys=""),
        Case("touch capdir/2 capdir/3"),
        Case("stat capdir/empty", keys="lfn type owner gowner perm ctime size md5"),
        Case("touch none/file", 121, "Remote I/O error : Failed to touch the LFN: {here}none/file"),
        Case("touch", 22, NO_ARGUMENT),
    ],
    "mv": [
        Case("mv capdir/empty capdir/moved", keys=""),
        Case("ls capdir/moved", says="^moved"),
        Case("mv capdir/2 one/"),
        Case("ls one/2", says="^2$"),
        Case("mv one/2 capdir/3 new"),
        Case("ls new", says="^2\n3$"),
        Case("mv new/2 new/3"),
        Case("ls new", says="^3\n3_backup$"),
        Case("mv new capdir"),
        Case("ls capdir/new", says="^3\n"),
        Case("mv capdir/none other", 22, "Invalid argument : Source cannot be found: {here}capdir/none"),
        Case("mv capdir capdir/a/b", 5, "Input/output error : Failed to move capdir to {here}capdir/a/b"),
        Case("mv capdir capdir/moved", 22, differs="22 with another text"),
        Case("mv capdir", says="^usage: mv"),
        Case("mv", 22, NO_ARGUMENT),
    ],
    "rm": [
        Case("rm capdir/moved", keys=""),
        Case("rm capdir/moved", 5, "Input/output error : Failed to remove [{here}capdir/moved]", keys=""),
        Case("rm -f capdir/moved", 5, "Input/output error : Failed to remove [{here}capdir/moved]"),
        Case("rm capdir", 5, "Input/output error : Failed to remove [{here}capdir]", keys=""),
        Case("rm capdir/new/*"),
        Case("rm capdir/none*", 2, "No such file or directory : capdir/none*"),
        Case("rm -r capdir", keys=""),
        Case("rm -rf one two"),
        Case("rm -r {here}", 22, "Invalid argument : Cannot delete the directory you are in"),
        Case("rm -r /local/user", 22, "Invalid argument : Cannot delete the directory you are in"),
        Case("rm", 22, NO_ARGUMENT),
        Case("rm -y file", 22, UNKNOWN_Y),
    ],
    "rmdir": [
        Case("mkdir full"),
        Case("touch full/file"),
        Case("rmdir full", 5, "Input/output error : Could not remove directory: full"),
        Case("rmdir full/file", 20, "Not a directory : full/file"),
        Case("rm full/file"),
        Case("rmdir full", keys=""),
        Case("rmdir full", 2, "No such file or directory : full"),
        Case("rmdir .", 22, "Invalid argument : Cannot delete the directory you are in"),
        Case("rmdir", 22, NO_ARGUMENT),
    ],
    "stat": [
        Case("stat t1/blob", keys=STAT, says="Size: 3000000 \\(2.861 MB\\)"),
        Case("stat t1", keys="lfn type owner gowner perm ctime"),
        Case("stat /nowhere", 2, "No such file or directory : /nowhere", keys=""),
        Case("stat t1/blob /nowhere", 2, "No such file or directory : /nowhere", keys=STAT),
        Case("stat {guid}"),
        Case("stat -v t1/blob"),
        Case("stat", 22, NO_ARGUMENT),
        Case("stat -y t1", 22, UNKNOWN_Y),
    ],
    "find": [
        Case("find {here}t1 *", keys="lfn"),
        Case("find {here}t1 *.sh", keys="lfn"),
        Case("find t1 %.sh", keys="lfn", says="t1/job.sh\n.*t1/spin.sh$"),
        Case("find t1/*.sh", keys="lfn", says="t1/job.sh\n.*t1/spin.sh$"),
        Case("find -a {here} hid", keys="lfn", says="/.hidden$"),
        Case("find -w {here}t1 *.sh", keys=WIDE),
        Case("find -wh t1 blob", keys=WIDE, says=" 2.861 MB "),
        Case("find -f {here}t1 blob", keys=ALL_OF_IT),
        Case("find -d {here} t1", keys="lfn", says="t1/\n"),
        Case("find -d t1 *", keys="lfn", says="^{here}t1/\n"),
        Case("find t1 s_in", keys="lfn", says="^{here}t1/spin.sh$"),
        Case("find t1 s?in", keys=""),
        Case("find -c {here}t1 *", keys="lfn", says="Found 6 maching entries$"),
        Case("find -wc t1 *.sh", says="Found 2 maching entries, of 83$"),
        Case("find -l 1 {here}t1 *", keys="lfn"),
        Case("find -o 1 -l 1 {here}t1 *", keys="lfn"),
        Case("find -r t1 'b.*b$'", keys="lfn", says="^{here}t1/blob$"),
        Case("find -s t1 blob", keys="lfn"),
        Case("find -S Site1 t1 blob", keys="lfn"),
        Case("find -j {done} {here} *", keys="lfn", says="^{here}out/out.txt$"),
        Case("stat out/out.txt", keys=f"{STAT} jobid", says="Job ID: {done}"),
        Case("find -l x t1 *", 22, "Invalid argument : Cannot parse argument 'x' of option l"),
        Case("find -l", 22, "Invalid argument : Option l requires an argument"),
        Case("find -x coll {here}t1 *.sh", keys=""),
        Case("cat coll", says='(?s)<collection.*lfn="{here}t1/job.sh".*lfn="{here}t1/spin.sh"'),
        Case("find -x - t1 *.sh", keys="lfn", says="<collection"),
        Case("find {here}t1 none*", keys=""),
        Case("find /nowhere *", 20, "Not a directory : /nowhere", keys=""),
        Case("find t1/blob *", 20, "Not a directory : t1/blob"),
        Case(
            "find t1",
            22,
            "Invalid argument : I can't infer the search pattern from `t1`,"
            " please pass the base directory and the search pattern separately",
        ),
        Case("find", 22, NO_ARGUMENT),
        Case("find -Y t1 *", 22, "Invalid argument : Y is not a recognized option"),
        Case("find2 t1", says="t1/spin.sh$"),
        Case("find2 -glob *.sh t1", says="^{here}t1/job.sh\n{here}t1/spin.sh$"),
        Case("find2 -select .*b$ t1", says="^{here}t1/blob$"),
        Case("find2 -minsize 1000000 t1", says="^{here}t1/blob$"),
        Case("find2 -maxdepth 1 t1", says="t1/blob"),
        Case("find2 -exclude spin t1", says="t1/job.sh"),
        Case("find2 -user gridproof t1", says="t1/blob"),
    ],
    "whereis": [
        Case("whereis t1/blob", keys=REPLICA),
        Case("whereis -r t1/blob", keys=REPLICA),
        Case("whereis -l t1/blob", keys=REPLICA),
        Case("whereis -g {guid}", keys=REPLICA, says="^the GUID "),
        Case("whereis -g x", 22, "Invalid argument : This is not a valid GUID: x"),
        Case("whereis members/a.txt", keys="seName pfn", says="ZIP archive member"),
        Case("whereis -r members/a.txt", keys=REPLICA, says=r"inside a ZIP archive[^?]*\?ZIP=a.txt\n"),
        Case("whereis -r -l members/a.txt", says="archive LFN: {here}members/archive.zip\n"),
        Case("whereis /nowhere", 2, "No such file or directory : /nowhere", keys=""),
        Case("whereis t1", 22, "Invalid argument : The path you indicated is not a file: t1"),
        Case("whereis", 22, NO_ARGUMENT),
        Case("pfn t1/blob", says="^root://.*\nroot://"),
        Case("pfn-status t1/blob", says="permission denied"),  # it asks the SE without an envelope
    ],
    "access": [
        Case("access read {here}t1/blob", keys=ENVELOPE),
        Case("access read /nowhere", 2, "No such file or directory : /nowhere", keys=""),
        Case("access read t1/blob", 2, "No such file or directory : t1/blob", keys=""),
        Case("access write new", 2, "No such file or directory : new", keys=""),
        Case("access write {here}new disk:1", keys=ENVELOPE),
        Case("access write {here}new2 disk:2", keys=ENVELOPE),
        Case("access read {here}t1", 77),
        Case("access erase {here}t1/blob", 22, "Invalid argument : Invalid access type requested: erase"),
        Case(
            "access write {here}new3 disk:x",
            22,
            "Invalid argument : Invalid format of the QoS string `disk:x`",
        ),
        Case("access", 22, NO_ARGUMENT),
        Case("lfn2uri {here}t1/blob", says="root://"),
    ],
    "cp": [
        Case("cp file:local.txt {here}up"),
        Case("md5sum {here}up", says="^{md5}\t"),
        Case("cp {here}up file:down"),
        Case("cp file:local.txt {here}up2@disk:2"),
        Case("whereis {here}up2", says="SE => .*\n.*SE => "),
        Case("cp -f file:local.txt {here}up"),
        Case("touch {here}up4"),
        Case("cp file:local.txt {here}up4"),
        Case("md5sum {here}up4", says="^{md5}\t"),
        Case("cp file:none.txt {here}up3", 2),
        Case("cp {here}none file:none", 2),
        Case("cp {here}members/a.txt file:member"),
        Case("cp -T 1 -glob *.sh {here}t1/ file:many/"),
        Case("cp", 22),
    ],
    "cat": [
        Case("cat t1/job.sh"),
        Case("cat /nowhere", 1),
        Case("exec t1/job.sh", says=""),
    ],
    "md5sum": [
        Case("md5sum t1/blob", keys="", says="^[0-9a-f]{32}\tt1/blob$"),
        Case("md5sum {guid}", says="^[0-9a-f]{32}\t"),
        Case("md5sum t1/blob t1/job.sh", says="\n"),
        Case("md5sum /nowhere", 2, "No such file or directory : /nowhere"),
        Case("md5sum t1", 22, "Invalid argument : This entry is not a file: t1"),
        Case("md5sum", 22, NO_ARGUMENT),
    ],
    "chmod": [
        Case("chmod 600 t1/k.jdl", keys=""),
        Case("ls -l t1/k.jdl", keys=LONG, says="^-rw-------"),
        Case("chmod 644 t1/k.jdl", keys=""),
        Case("chmod -R 755 t1"),
        Case("chmod 644", 22, "Invalid argument : No user or file entered"),
        Case("chmod 644 /nowhere", 5, "Input/output error : /nowhere: unable to chmod"),
        Case("chmod 644 t1/none*", 2, "No such file or directory : t1/none*"),
        Case("chmod", 22, NO_ARGUMENT),
    ],
    "type": [
        Case("type t1/blob", keys="lfn type"),
        Case("type t1", keys="lfn type"),
        Case("type /nowhere", 2, "No such file or directory : /nowhere"),
        Case("type t1 t1", 22, NO_ARGUMENT),
        Case("type -y t1", 22, UNKNOWN_Y, differs=TWO),
    ],
    "toXml": [
        Case("toXml {here}t1/blob", keys="", says="<collection"),
        Case("toXml t1/blob t1/job.sh", says='<event name="2">'),
        Case("toXml -x out.xml t1/blob"),
        Case("ls out.xml", keys=NAMES),
        Case(
            "toXml t1/blob /nowhere", 2, "No such file or directory : Only 1 out of 2 files could be resolved"
        ),
        Case("toXml -i t1/blob /nowhere", says='<event name="1">'),
        Case("toXml -h", says="usage: toXml"),
    ],
    "du": [Case("du {here}t1", says="Folders: ")],
    "lfn2guid, guid2lfn": [
        Case("lfn2guid t1/blob"),
        Case("lfn2guid t1", 21),
        Case("lfn2guid /nowhere", 2, "No such file or directory : /nowhere"),
        Case("guid2lfn {guid}", says="{here}t1/blob"),
        Case("guid2lfn x", 22),
    ],
    "xrdstat": [
        Case("xrdstat t1/blob", keys="seName seNumber pfn status", says="OK$"),
        Case("xrdstat -d {guid}", keys="seName seNumber pfn status"),
        Case("xrdstat -s Local::None::SE t1/blob", 6),
        Case(
            "xrdstat /nowhere",
            2,
            "No such file or directory : This LFN does not exist in the catalogue: /nowhere",
        ),
    ],
    "listFilesFromCollection": [
        Case(
            "listFilesFromCollection t1/blob",
            121,
            'Remote I/O error : This entry is not an AliEn collection: "t1/blob"',
        ),
        Case("listFilesFromCollection nothing", 121, 'Remote I/O error : No such LFN "nothing"'),
    ],
}

JOBS = {
    "ps": [
        Case("ps", keys=JOB),
        Case("ps -a", keys=JOB),
        Case("ps -j {done}", keys=JOB, says="  D  +ok.sh$"),
        Case("ps -j {done},{failed}", keys=JOB, says="  D .*\n.* EE "),
        Case("ps -j 1", keys=""),
        Case("ps -f RUNNING", keys=JOB),
        Case("ps -f", 22, "Invalid argument : Option f requires an argument"),
        Case("ps -f R,W -j {running},{waiting},{done}", keys=JOB, says="  R .*\n.*  W "),
        Case("ps -f -d", keys=JOB),
        Case("ps -f r", keys=JOB),
        Case("ps -f ERROR_ALL", keys=JOB, says=" EE "),
        Case("ps -X", keys=f"{JOB} site node"),
        Case("ps -X -a -f D,EE", keys=f"{JOB} site node", says="  D .*\n(.*\n)*.* EE "),
        Case("ps -Fl", keys=f"{JOB} site node"),
        Case("ps -m {master}", keys=JOB),
        Case("ps -m 1", keys=""),
        Case("ps -l 2", keys=JOB, says="^[^\n]+\n[^\n]+$"),
        Case("ps -u nobody", keys=""),
        Case("ps -s Site", keys=JOB),
        Case("ps -M", keys=JOB),
        Case("ps -E", keys=JOB),
        Case("ps -W", keys=JOB, says="  W "),
        Case("ps -A", keys=JOB),
        Case("ps -id -j {done}", keys=JOB, says="^{done}$"),
        Case("ps -jdl {done}", keys=f"{JOB} jdl", says="(?i)executable"),
        Case("ps -jdl 1", keys=""),
        Case("ps -trace {done}", keys=f"{JOB} trace", says="Job state transition"),
        Case("ps -trace 1", keys=""),
        Case(
            "ps -trace",
            22,
            "Invalid argument : No job IDs to get the trace for",
            differs="22, and the traces of all jobs",
        ),
        Case("ps -jdl x", 22, "Invalid argument : Cannot parse argument 'x' of option jdl"),
        Case("ps -l x", 22, "Invalid argument : Cannot parse argument 'x' of option l"),
        Case("ps -y", 22, UNKNOWN_Y),
        Case("ps -h", keys="", says="usage: ps"),
    ],
    "w, uptime": [
        Case("w", keys="value"),
        Case("w -h", keys="", says="usage: w"),
        Case("w -y", 22, UNKNOWN_Y),
        Case("uptime", says="^1 running jobs, 1 waiting jobs, 1 active users$"),
    ],
    "jobInfo": [
        Case("jobInfo {done}", says="(?s)State info:.*DONE"),
        Case("jobInfo {done} -trace", says="Trace info"),
        Case("jobInfo {done} -jdl", says="ok.sh"),
        Case("jobInfo {done},{failed}", says="(?s)DONE.*ERROR_E"),
        Case("jobInfo 1", keys=""),
        Case("siteJobs Site1", says="JobID"),
        Case("jobInfo", says="Command format: jobInfo"),
    ],
    "masterjob": [
        Case(
            "masterjob {master}",
            keys="",
            says="^Job {master} is in status: DONE\nSubjobs aggregated by state:",
        ),
        Case("masterjob {master} -printid", says="\\(ids: "),
        Case("masterjob {master} -status DONE", says="Subjobs in DONE: 2"),
        Case("masterjob {master} -printsite", says="Subjobs in DONE \\("),
        Case("masterjob {done}", keys="", says="^Job {done} is in status: DONE$"),
        Case("masterjob 1", keys=""),
        Case("masterjob x", 22, "Invalid argument : Incorrect job ID specification: x"),
        Case("masterjob", 22, NO_ARGUMENT),
    ],
    "submit": [
        Case("submit {here}ok.jdl", keys="jobId", says="Your new job ID is "),
        Case("submit {here}arg.jdl hello", keys="jobId"),
        Case("submit {here}arg.jdl", 22, keys=""),
        Case(
            "submit {here}none.jdl",
            121,
            "Remote I/O error : Not able to get the file {here}none.jdl",
            keys="",
        ),
        Case("submit {here}bad.jdl", 121),
        Case("submit", says="usage: submit"),
    ],
    "kill": [
        Case("kill {waiting}", keys="jobid status"),
        Case("kill {running}", keys="jobid status"),
        Case("ps -j {waiting}", keys=JOB, says="  K "),
        Case("kill 1", keys=""),
        Case("kill abc", keys=""),
        Case("kill 1 {waiting}", keys="jobid status", says="^Killed: {waiting}$"),
        Case("kill", 22, NO_ARGUMENT, keys=""),
    ],
    "resubmit": [
        Case("resubmit {failed}", keys="", says="^Resubmit: back to WAITING: {failed}$"),
        Case("resubmit {done}", keys="", says="^Resubmit: back to WAITING: {done}$"),
        Case(
            "resubmit {master}",
            77,
            "File descriptor in bad state : Resubmit: masterjob is not in an error state itself,"
            " will not split it again: {master} / DONE",
        ),
        Case("resubmit 1", 121, "Remote I/O error : Problem with the resubmit request of job ID 1", keys=""),
        Case("resubmit", 22, NO_ARGUMENT),
    ],
}

GRID = {
    "jobListMatch": [
        Case("jobListMatch {done}", keys="ceName status maxRunning maxQueued", says="LOCAL::SITE1::CE"),
        Case("jobListMatch {waiting}", keys=""),
        Case("jobListMatch {master}"),
        Case("jobListMatch 1", 3, "No such process : Job ID 1 was not found in the task queue"),
        Case("jobListMatch x", 22, NO_ARGUMENT),
    ],
    "registerOutput": [
        Case("registerOutput x", 22, "Invalid argument : Invalid job ID: x"),
        Case("registerOutput 1", 3, "No such process : Job ID 1 was not found in the task queue"),
    ],
    "listSEs": [
        Case(
            "listSEs",
            keys="seName seNumber totalSpace usedSpace freeSpace fileCount demoteRead demoteWrite"
            " qos endpointUrl",
        ),
        Case("listSEs Local::Site2::SE", says="Local::Site2::SE"),
        Case("listSEs -s", says="TOTAL: 3 SEs"),
        Case("listSEs -qos tape", keys=""),
        Case("listSEs -y", 22, UNKNOWN_Y, differs=TWO),
        Case("getSE Site2", says="Local::Site2::SE"),
        Case("getSE nothing", 1),
        Case("SEqos Site1", says="Local::Site1::SE +disk"),
        Case("xrd_ping Local::Site1::SE", says="rtt min/avg/max"),
        Case("xrd_config Local::Site1::SE", says="Local::Site1::SE/v5"),
    ],
    "listSEDistance": [
        Case("listSEDistance", keys="", says="LOCAL::SITE1::SE"),
        Case("listSEDistance -y", 22, UNKNOWN_Y, differs=TWO),
        Case("listSEDistance -site Site2", keys="", says="LOCAL::SITE2::SE.*distance:  0.000"),
    ],
    "listCEs": [
        Case("listCEs", keys="ceName status maxRunning maxQueued partitions TTL type host"),
        Case("listCEs -y", 22, UNKNOWN_Y, differs=TWO),
        Case("listCEs Local::Site1::CE", says="LOCAL::SITE1::CE"),
        Case("getCE", says="LOCAL::SITE1::CE"),
        Case("getCE -name Site2", says="LOCAL::SITE2::CE"),
    ],
    "quota": [
        Case("quota", says="^Quota report for user : gridproof\n"),
        Case("quota guest"),
        Case("quota nobody", 1),
        Case("jquota list", differs="without maxParallelJobs and nominalParallelJobs, which alienpy needs"),
        Case("jquota", 22, NO_ARGUMENT),
        Case("fquota list", differs="61 for a user without a file quota"),
    ],
    "token": [
        Case("token", keys="", says="DN: /C=ch/O=AliEn2/CN=Users/CN=gridproof/OU=gridproof\n"),
        Case("token -u nobody", 1, "Operation not permitted : Switching user gridproof to [nobody] failed"),
        Case("token -v x", 22, "Invalid argument : Cannot parse argument 'x' of option v"),
        Case("token -t none", 22, differs="22 with another text"),
        Case("cert-info", says="DN >>> "),
        Case("cert-verify", says="successful"),
        Case("token-verify", says="successful"),
        Case("certkey-match", says="match"),
        Case("tokenkey-match", says="match"),
    ],
    "listpartitions": [
        Case("listpartitions", keys="", says="Partition name"),
        Case("listpartitions -v", keys="", says="Member CEs"),
    ],
    "packages": [Case("packages", keys="packages"), Case("packages -h", says="usage: packages")],
    "top, df": [
        Case("top", 38, "Function not implemented : not implemented yet"),
        Case("df", 38, "Function not implemented"),
    ],
    "groups, groupmembers": [
        Case("groups", keys="", says="User: gridproof, main group: gridproof"),
        Case("groupmembers gridproof", keys="", says="Members of gridproof: .*gridproof"),
        Case("groupmembers nobody", 2, "No such file or directory : Group nobody does not exist"),
    ],
    "whois": [
        Case("whois gridproof", keys="username roles subject", says="Username: gridproof"),
        Case("whois -s proof", keys="username roles subject"),
        Case("whois nobody", says="Username not found: nobody"),
        Case("whois", 22, NO_ARGUMENT),
    ],
    "commandlist": [Case("commandlist", keys="commandlist", says="^cd\npwd\nmkdir\n")],
    "setSite": [
        Case("setSite", says="Keeping the current close site"),
        Case("setSite Site2", says="Setting close site to Site2"),
        Case("setSite Site1", says="Setting close site to Site1"),
    ],
    "other": [
        Case("home", says="^{home}$"),
        Case("prompt"),
        Case("nonsense", 1),
        Case("queueinfo", 1),
        Case("jobinfo 1", 1),
        Case("ls -nomsg", keys=NAMES),
        Case("ls -nokeys", keys=""),
        Case("help ls", says="usage: ls"),
        Case("dirs"),
        Case("pushd t1", says="/t1 "),
        Case("popd"),
        Case("pwd", says="^{here}$"),
    ],
    # they make a new connection, which starts at home again
    "token-init": [
        Case("token-init", says="DN >>> C=ch/O=AliEn2/CN=Users/CN=gridproof/OU=gridproof"),
        Case("token-info", says="DN >>> C=ch"),
        Case("token-destroy"),
    ],
}

SECTIONS: dict[str, list[Case]] = {**SESSION, **FILES, **JOBS, **GRID}
