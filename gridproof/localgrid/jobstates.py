"""The states of a job in JAliEn: numbers, letters for ``ps``, and which may follow which."""

from __future__ import annotations

INSERTING, SPLITTING, SPLIT = "INSERTING", "SPLITTING", "SPLIT"
WAITING, ASSIGNED, STARTED, RUNNING = "WAITING", "ASSIGNED", "STARTED", "RUNNING"
SAVING, DONE = "SAVING", "DONE"
ERROR_A, ERROR_I, ERROR_E, ERROR_IB = "ERROR_A", "ERROR_I", "ERROR_E", "ERROR_IB"
ERROR_SPLT, ERROR_SV, ERROR_W = "ERROR_SPLT", "ERROR_SV", "ERROR_W"
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

FINAL = frozenset(
    {"DONE", "DONE_WARN", "KILLED", "EXPIRED"} | {state for state in LETTERS if state.startswith("ERROR_")}
)
ON_NODE = frozenset({ASSIGNED, STARTED, RUNNING, SAVING, ZOMBIE})
RETRIED = frozenset({ERROR_A, ERROR_IB})

_ENDS_ON_NODE = frozenset({ERROR_A, ERROR_E, KILLED, EXPIRED, ZOMBIE, WAITING})

TRANSITIONS: dict[str, frozenset[str]] = {
    INSERTING: frozenset({WAITING, SPLITTING, ERROR_I, KILLED}),
    SPLITTING: frozenset({SPLIT, ERROR_SPLT, KILLED}),
    SPLIT: frozenset({DONE, KILLED}),
    WAITING: frozenset({ASSIGNED, KILLED, ERROR_W}),
    ASSIGNED: frozenset({STARTED}) | _ENDS_ON_NODE,
    STARTED: frozenset({RUNNING, ERROR_IB}) | _ENDS_ON_NODE,
    RUNNING: frozenset({SAVING}) | _ENDS_ON_NODE,
    SAVING: frozenset({DONE, ERROR_SV}) | _ENDS_ON_NODE,
    ZOMBIE: frozenset({STARTED, RUNNING, SAVING, ERROR_E, EXPIRED, KILLED}),
    **{state: frozenset({WAITING}) for state in FINAL},
}
TRANSITIONS[KILLED] = frozenset({WAITING})


def may_follow(old: str, new: str) -> bool:
    """Whether a job may go from ``old`` to ``new``."""
    return new in TRANSITIONS.get(old, frozenset())


def is_final(state: str) -> bool:
    """Whether nothing more happens to a job in this state by itself."""
    return state in FINAL
