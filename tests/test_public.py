"""What users see of the package, and what merely importing it costs."""

import subprocess
import sys
import time

import gridproof

PUBLIC = {
    *("Dataset", "GridproofError", "Progress", "Query", "Result", "Session", "Summary"),
    *("attach", "errors", "open", "sessions"),
}
ERRORS = {
    "AlienError",
    "AnswerLost",
    "CommandError",
    "CompileError",
    "ConfigError",
    "CredentialError",
    "DatasetError",
    "GridproofError",
    "JdlError",
    "LocalGridError",
    "MemoryLimit",
    "MergeError",
    "MissingFiles",
    "NotEnoughWorkers",
    "ProxyError",
    "QueryCancelled",
    "QueryError",
    "SelectorCrashed",
    "SelectorError",
    "SessionError",
    "StoreError",
    "TransferError",
    "VersionMismatch",
    "WireError",
}
IMPORT_SECONDS = 0.3
ROUNDS = 5


def in_fresh_python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def seconds(code: str) -> float:
    start = time.perf_counter()
    in_fresh_python(code)
    return time.perf_counter() - start


def test_the_public_names_are_these_and_no_others():
    assert set(gridproof.__all__) == PUBLIC
    assert set(dir(gridproof)) == PUBLIC


def test_every_public_name_is_there():
    for name in PUBLIC:
        assert getattr(gridproof, name) is not None


def test_the_errors_are_these_and_belong_to_one_tree():
    found = {name: thing for name, thing in vars(gridproof.errors).items() if isinstance(thing, type)}
    ours = {name for name, thing in found.items() if issubclass(thing, gridproof.GridproofError)}
    assert ours == ERRORS


def test_a_name_that_does_not_exist_is_an_attribute_error():
    assert not hasattr(gridproof, "no_such_name")


def test_importing_brings_neither_root_nor_anything_heavy():
    loaded = in_fresh_python("import gridproof, sys; print(*sys.modules)").split()
    assert not {"ROOT", "cppyy", "distributed", "asyncssh", "websockets", "numpy"} & set(loaded)


def test_importing_starts_nothing_and_leaves_the_process_as_it_was():
    unchanged = in_fresh_python(
        "import logging, os, signal, sys, threading, warnings\n"
        "def state():\n"
        "    handlers = [signal.getsignal(s) for s in signal.valid_signals()]\n"
        "    files = sorted(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else []\n"
        "    return (dict(os.environ), handlers, files, os.getcwd(), list(sys.path),\n"
        "            threading.active_count(), list(logging.root.handlers), list(warnings.filters))\n"
        "before = state()\n"
        "import gridproof\n"
        "print(state() == before)"
    )
    assert unchanged == "True"


def test_importing_takes_less_than_a_third_of_a_second():
    bare, ours = [], []
    for _ in range(ROUNDS):  # taken in turn, so that a busy machine slows both
        bare.append(seconds("pass"))
        ours.append(seconds("import gridproof"))
    assert min(ours) - min(bare) < IMPORT_SECONDS


def test_the_command_shows_its_help_without_root():
    loaded = in_fresh_python(
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from gridproof.cli import cli\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0\n"
        "print(*sys.modules)"
    ).split()
    assert not {"ROOT", "distributed", "asyncssh"} & set(loaded)
