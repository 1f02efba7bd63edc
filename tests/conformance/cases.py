"""What is typed at alienpy's prompt, and what JAliEn makes of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One line typed at the prompt, in a directory prepared like that of the recordings.

    ``{here}``, ``{home}`` and the like stand for names of the run. ``keys`` are those of all rows together
    ("" = none), ``says`` is a pattern that is found in the text for people, ``differs`` says how and why
    JAliEn would answer otherwise, ``local`` that alienpy answers without asking.
    """

    line: str
    code: int = 0
    error: str = ""
    keys: str | None = None
    says: str = ""
    differs: str = ""
    local: bool = False


NO_ARGUMENT = "Invalid argument : Command requires an argument"

NAMES = "name path"
LONG = "permissions user group size ctime name path"
STAT = "lfn type owner gowner perm ctime size md5 guid mtime"

SESSION = {
    "whoami": [
        Case(
            "whoami",
            keys="username role roles certificate_expires certificate_dn connected_from homedir",
            says="^gridproof$",
        ),
        Case("whoami -v", says="gridproof"),
    ],
    "pwd": [Case("pwd", keys="pwd", says="^{here}$")],
    "cd": [
        Case("cd t1"),
        Case("pwd", says="^{here}t1/$"),
        Case("cd .."),
        Case("cd"),
        Case("pwd", says="^{home}$"),
        Case("cd {here}"),
        Case("cd /nowhere", 2, "No such file or directory"),
        Case("cd t1/blob", 2),
        Case("cd -"),
        Case("pwd", says="^{home}$"),
        Case("cd ~/"),
        Case("cd {here}"),
    ],
    "ping": [
        Case("ping", says="3 time", local=True),
        Case("ping 1", says="1 time", local=True),
        Case("ping x", 1, "Unrecognized argument, it should be int type", local=True),
    ],
    "time": [
        Case("time pwd", says="{here}\n>>>ProcessInput time"),
        Case("time ls /nowhere", 2, "No such file or directory : /nowhere"),
    ],
    "version": [Case("version", says="alien.py version: 1.7.0", local=True)],
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
        Case("ls /nowhere", 2, "No such file or directory : /nowhere"),
        Case("ls -l t1/*.sh", keys=LONG, says="job.sh\n.*spin.sh"),
        Case("ls t1 {here}data", keys=NAMES),
        Case("ll t1", keys=LONG),
        Case("la t1", keys=NAMES),
        Case("lla t1", keys=LONG),
    ],
    "mkdir": [
        Case("mkdir capdir", keys=""),
        Case("mkdir capdir"),
        Case("mkdir -p capdir/a/b"),
        Case("mkdir one two"),
        Case(
            "mkdir capdir/x/y/z",
            2,
            "No such file or directory : Could not create directory: {here}capdir/x/y/z",
        ),
        Case("mkdir", 22, NO_ARGUMENT),
    ],
    "touch": [
        Case("touch capdir/empty", keys=""),
        Case("touch capdir/empty"),
        Case("touch capdir/2 capdir/3"),
        Case("touch", 22, NO_ARGUMENT),
    ],
    "mv": [
        Case("mv capdir/empty capdir/moved", keys=""),
        Case("ls capdir/moved", keys=NAMES),
        Case("mv capdir/2 one/"),
        Case("ls one/2", keys=NAMES),
        Case("mv capdir/none capdir/other", 2),
        Case("mv capdir/3", 22, NO_ARGUMENT),
        Case("mv", 22, NO_ARGUMENT),
    ],
    "rm": [
        Case("rm capdir/moved", keys=""),
        Case("rm capdir/moved", 5, "Input/output error : Failed to remove [{here}capdir/moved]"),
        Case("rm -f capdir/moved"),
        Case("rm capdir", 5, "Input/output error : Failed to remove [{here}capdir]"),
        Case("rm -r capdir"),
        Case("rm -rf one two"),
        Case("rm", 22, NO_ARGUMENT),
    ],
    "rmdir": [
        Case("mkdir full"),
        Case("touch full/file"),
        Case("rmdir full", 5, "Input/output error : Could not remove directory: full"),
        Case("rm full/file"),
        Case("rmdir full"),
        Case("rmdir", 22, NO_ARGUMENT),
    ],
    "stat": [
        Case("stat t1/blob", keys=STAT, says="Size: 3000000 \\(2.861 MB\\)"),
        Case("stat t1", keys="lfn type owner gowner perm ctime"),
        Case("stat /nowhere", 2, "No such file or directory : /nowhere"),
        Case("stat -v t1/blob", keys=f"{STAT} replicas"),
        Case("stat", 22, NO_ARGUMENT),
    ],
    "find": [
        Case("find {here}t1 *", keys="lfn"),
        Case("find {here}t1 *.sh", keys="lfn"),
        Case("find -w {here}t1 *.sh", keys="lfn perm owner gowner size ctime guid"),
        Case("find -d {here} t1", keys="lfn"),
        Case("find -c {here}t1 *", keys="lfn", says="Found 6 maching entries$"),
        Case("find -l 1 {here}t1 *", keys="lfn"),
        Case("find -o 1 -l 1 {here}t1 *", keys="lfn"),
        Case("find {here}t1 none*", keys=""),
        Case("find /nowhere *", 20, "Not a directory : /nowhere"),
        Case("find {here}t1", 22, NO_ARGUMENT),
        Case("find", 22, NO_ARGUMENT),
    ],
    "whereis": [
        Case("whereis t1/blob", keys="seNumber seName pfn"),
        Case("whereis -r t1/blob", keys="seNumber seName pfn"),
        Case("whereis /nowhere", 2, "No such file or directory : /nowhere"),
        Case("whereis t1", 22),
        Case("whereis", 22, NO_ARGUMENT),
    ],
}

SECTIONS: dict[str, list[Case]] = {**SESSION, **FILES}
