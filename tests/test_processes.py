"""Children that die with their owner."""

import subprocess
import sys

import pytest

_OWNER = """
import os, subprocess, sys, types
from gridproof import processes
for name in sys.argv[1:]:
    sys.modules[name] = types.ModuleType(name)
forks = []
os.register_at_fork(before=lambda: forks.append(1))
sleeper = "import os, time; print(os.getpid()); time.sleep(600)"
child = processes.spawn([sys.executable, "-c", sleeper], stdout=1)
print("forked" if forks else "not forked", flush=True)
sys.stdin.read(1)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("modules", "how"), [([], "forked"), (["ROOT"], "not forked")])
def test_a_child_dies_with_a_killed_owner_which_does_not_fork_where_root_is_loaded(modules, how):
    argv = [sys.executable, "-c", _OWNER, *modules]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert how in {owner.stdout.readline().strip() for _ in range(2)}
        owner.stdin.write("x")
        owner.stdin.flush()
        assert owner.stdout.read() == "", "the child held the pipe's other end, too"
