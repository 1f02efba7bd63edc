"""The states of a job in JAliEn: their letters for ``ps``, and which may follow which."""

from __future__ import annotations

INSERTING, SPLITTING, SPLIT = "INSERTING", "SPLITTING", "SPLIT"
WAITING, ASSIGNED, STARTED, RUNNING = "WAITING", "ASSIGNED", "STARTED", "RUNNING"
SAVING, SAVED, SAVED_WARN, DONE, DONE_WARN = "SAVING", "SAVED", "SAVED_WARN", "DONE", "DONE_WARN"
ERROR_A, ERROR_I, ERROR_E, ERROR_IB = "ERROR_A", "ERROR_I", "ERROR_E", "ERROR_IB"
ERROR_SPLT, ERROR_SV, ERROR_EW = "ERROR_SPLT", "ERROR_SV", "ERROR_EW"
ERROR_S, ERROR_V, ERROR_VN, ERROR_VT = "ERROR_S", "ERROR_V", "ERROR_VN", "ERROR_VT"
EXPIRED, KILLED, ZOMBIE = "EXPIRED", "KILLED", "ZOMBIE"

LETTERS = {
    "INSERTING": "I",
    "SPLITTING": "SP",
    "SPLIT": "S",
    "WAITING": "W",
    "ASSIGNED": "ASG",
    "STARTED": "ST",
    "RUNNING": "R",
    "SAVING": "SV",
    "SAVED": "SVD",
    "MERGING": "M",
    "DONE": "D",
    "DONE_WARN": "DW",
    "SAVED_WARN": "SW",
    "ERROR_A": "EA",
    "ERROR_I": "EI",
    "ERROR_E": "EE",
    "ERROR_IB": "EIB",
    "ERROR_S": "ES",
    "ERROR_SPLT": "ESP",
    "ERROR_SV": "ESV",
    "ERROR_V": "EV",
    "ERROR_VN": "EVN",
    "EXPIRED": "XP",
    "KILLED": "K",
    "ZOMBIE": "Z",
    "ERROR_VT": "EVT",
    "ERROR_EW": "EEW",
    "ERROR_W": "EW",
}

ERRORS = frozenset(state for state in LETTERS if state.startswith("ERROR_"))
FINAL = ERRORS | {DONE, DONE_WARN, KILLED, EXPIRED}
ON_NODE = frozenset({ASSIGNED, STARTED, RUNNING, SAVING, SAVED, SAVED_WARN, ZOMBIE})
RETRIED = frozenset({ERROR_A, ERROR_IB})

_ANYWHERE_ON_NODE = frozenset({ERROR_A, ERROR_E, EXPIRED, ZOMBIE})
_SAVED = frozenset({SAVED, SAVED_WARN, DONE, DONE_WARN, ERROR_S, ERROR_SV, ERROR_V, ERROR_VN, ERROR_VT})

TRANSITIONS: dict[str, frozenset[str]] = {
    INSERTING: frozenset({WAITING, SPLITTING, ERROR_I}),
    SPLITTING: frozenset({SPLIT, ERROR_SPLT}),
    SPLIT: frozenset({DONE}),
    WAITING: frozenset({ASSIGNED, ERROR_EW}),
    ASSIGNED: frozenset({STARTED}) | _ANYWHERE_ON_NODE,
    STARTED: frozenset({RUNNING, ERROR_IB, ERROR_VN}) | _ANYWHERE_ON_NODE,
    RUNNING: frozenset({SAVING, ERROR_V, ERROR_VN, ERROR_VT}) | _ANYWHERE_ON_NODE,
    SAVING: _SAVED | _ANYWHERE_ON_NODE,
    SAVED: _SAVED - {SAVED},
    SAVED_WARN: frozenset({DONE_WARN, ERROR_SV}),
    ZOMBIE: frozenset({ERROR_E, EXPIRED}),
}


def may_follow(old: str, new: str) -> bool:
    """Whether a job may go from ``old`` to ``new``; KILLED may follow any other, also a final one."""
    return new in TRANSITIONS.get(old, ()) or (new == KILLED and old != KILLED)


def is_final(state: str) -> bool:
    """Whether nothing more happens to a job in this state by itself."""
    return state in FINAL
