"""What the many states of a job in AliEn come to. Names and meaning: ``JobStatus`` of JAliEn."""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """How far a job is; a state that is not known here (of a later AliEn) is neither on its way nor over."""

    WAITING = "waits for a slot"
    RUNNING = "holds a slot"
    SPLIT = "a master whose subjobs are at work"
    RETRIED = "failed before its payload ran; AliEn lets it wait again, up to ten times"
    SILENT = "has a slot that has not been heard of for long"
    DONE = "over"
    FAILED = "over, badly"
    KILLED = "over, on command"
    UNKNOWN = "in a state that is not known here"

    @property
    def final(self) -> bool:
        """Whether a job does not leave it by itself."""
        return self in (Phase.DONE, Phase.FAILED, Phase.KILLED)


_STATES = {
    Phase.WAITING: "INSERTING UPDATING SPLITTING TO_STAGE A_STAGED STAGING WAITING OVER_WAITING",
    Phase.RUNNING: "ASSIGNED STARTED IDLE INTERACTIV RUNNING SAVING SAVED SAVED_WARN",
    Phase.SPLIT: "SPLIT FORCEMERGE MERGING",
    Phase.RETRIED: "ERROR_A ERROR_IB",
    Phase.SILENT: "ZOMBIE",
    Phase.DONE: "DONE DONE_WARN",
    Phase.FAILED: "ERROR_I ERROR_E ERROR_M ERROR_S ERROR_SPLT ERROR_SV ERROR_V ERROR_VN ERROR_VT ERROR_RE "
    "ERROR_EW ERROR_W ERROR_VER FAULTY INCORRECT EXPIRED FAILED",
    Phase.KILLED: "KILLED",
}
_PHASES = {state: phase for phase, states in _STATES.items() for state in states.split()}


def phase_of(status: str) -> Phase:
    """The phase of a state as ``ps`` shows it."""
    return _PHASES.get(status, Phase.UNKNOWN)
