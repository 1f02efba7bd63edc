"""The event loop behind a session."""

import pytest

from gridproof.errors import SessionError
from gridproof.loopthread import LoopThread


async def answer():
    return 42


def test_what_is_asked_of_a_closed_session_is_its_own_error():
    loop = LoopThread("test")
    assert loop.run(answer()) == 42
    loop.close()
    with pytest.raises(SessionError, match="closed"):
        loop.run(answer())
