"""A process in which alienpy lives: requests come as JSON lines on standard input, answers leave as such.

alienpy's XRootD and ROOT's never share a process, and alienpy reads its environment when it is imported: so
this is started with an environment of its own and imports nothing of gridproof.
"""

import contextlib
import io
import json
import shlex
import sys


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # what alienpy prints is not an answer
    from alienpy import alien
    from alienpy.wb_api import SendMsg

    session = alien.AliEn()

    def prompt(line):
        command, *arguments = shlex.split(line)
        return alien.ProcessInput(session.wb(), command, arguments)

    def send(line):
        command, *arguments = shlex.split(line)
        return SendMsg(session.wb(), command, arguments)

    ways = {"prompt": prompt, "run": session.run, "send": send}
    for request in sys.stdin:
        way, line = json.loads(request)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                answer = ways[way](line)
                result = {**answer._asdict(), "exitcode": int(answer.exitcode)}
            except Exception as error:  # alienpy's own mistakes are findings, too
                result = {"exception": f"{type(error).__name__}: {error}"}
        print(json.dumps({**result, "printed": printed.getvalue()}, default=str), file=answers, flush=True)


if __name__ == "__main__":
    main()
