"""A session whose connections to the central service break off all the time."""

import contextlib
import itertools
import socket
import threading

import gridproof
from gridproof.alien import Alien


class BreakingLine:
    """Forwards connections to a port; each one is cut in place of an answer that comes back."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self._lives = itertools.cycle(
            (6, 4, 8, 5, 7)
        )  # pieces from the service, three before the first answer
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.port = self._server.getsockname()[1]
        self.cuts = 0

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in (self._server, *self._ends):
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._ends += [near, far]
                for source, sink, lives in ((near, far, 0), (far, near, next(self._lives))):
                    thread = threading.Thread(target=self._pump, args=(source, sink, lives))
                    self._threads.append(thread)
                    thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, lives: int) -> None:
        with contextlib.suppress(OSError):
            for piece in itertools.count(1):
                data = source.recv(1 << 16)
                if piece == lives:
                    self.cuts += 1
                if not data or piece == lives:
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def submissions(grid):
    return sum(count for (_, command), count in grid.commands().items() if command == "submit")


def test_a_session_opens_and_ends_though_the_connection_breaks_all_the_time(world, monkeypatch):
    grid, environment = world.grid, world.grid.environment
    before = submissions(grid)
    line = BreakingLine(int(environment["ALIENPY_JCENTRAL_PORT"]))
    with contextlib.closing(line), monkeypatch.context() as detour:
        detour.setitem(grid._environment, "ALIENPY_JCENTRAL_PORT", str(line.port))
        with gridproof.open(grid, workers=2) as session:
            masters = list(session._pilots._watch.masters)
    assert line.cuts >= 5
    assert submissions(grid) - before == len(masters) == 1
    with Alien.connect(environment) as alien:
        jobs = alien.subjobs(masters)
    assert len(jobs) == 2
    assert all(job.is_final for job in jobs)
