"""Who may join as a pilot (pure: no I/O, no clock).

A join key lies in the input sandbox of all pilots of one *submission* and is good for one thing: to enrol
the key pair that a pilot has made itself. From then on the pilot's own key tells who it is, and the pilot
is the user's who submitted it. Times (``now``, ``expires``, …) are in epoch seconds, since what is known
here outlives the ProxyServer.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gridproof.errors import ProxyError
from gridproof.proxy.protocol import check_name

AWAY_LIMIT = 3600.0  # a pilot that was not connected for so long has ended


@dataclass(frozen=True)
class Submission:
    """Pilots that share an input sandbox: at most ``pilots`` jobs of ``grid_user``, until ``expires``.

    ``key`` is the public half of their join key (SSH wire format).
    """

    name: str
    user: str
    grid_user: str
    session: str
    key: bytes
    pilots: int
    expires: float
    revoked: bool = False


@dataclass(frozen=True)
class Applicant:
    """What a payload says of itself when it enrols ``key``.

    ``began``: when its run of the job began; of two payloads with the same job id the later one is wanted.
    ``grid_user``: whose job it has proved to be; None where no proof was asked for.
    """

    job_id: str
    key: bytes
    began: float
    grid_user: str | None = None


@dataclass(frozen=True)
class Identity:
    """A pilot that has enrolled; ``ended`` says why it is none any more, empty while it is one."""

    pilot: str
    key: bytes
    submission: str
    user: str
    session: str
    job_id: str
    began: float
    ended: str = ""


@dataclass(frozen=True)
class Changes:
    """What is to be kept anew, and the names of submissions to be forgotten with all of their pilots."""

    submissions: tuple[Submission, ...]
    identities: tuple[Identity, ...]
    forgotten: tuple[str, ...]


class Joining:
    """Submissions and the identities of the pilots that have enrolled with them.

    Every refusal is a `ProxyError` whose text says why, for the ProxyServer's log.
    """

    def __init__(
        self, submissions: Iterable[Submission] = (), identities: Iterable[Identity] = (), now: float = 0.0
    ) -> None:
        self._submissions = {submission.name: submission for submission in submissions}
        self._identities = {identity.pilot: identity for identity in identities}
        self._of: dict[str, dict[str, Identity]] = {name: {} for name in self._submissions}
        for identity in sorted(self._identities.values(), key=lambda one: (one.began, not one.ended)):
            self._of[identity.submission][identity.job_id] = identity
        self._away = {pilot: now for pilot, identity in self._identities.items() if not identity.ended}
        self._changed_submissions: set[str] = set()
        self._changed_pilots: set[str] = set()
        self._forgotten: set[str] = set()

    def take_changes(self) -> Changes | None:
        """What has changed since the last call; None for nothing."""
        if not (self._changed_submissions or self._changed_pilots or self._forgotten):
            return None
        changes = Changes(
            tuple(self._submissions[name] for name in self._changed_submissions if name in self._submissions),
            tuple(self._identities[pilot] for pilot in self._changed_pilots if pilot in self._identities),
            tuple(self._forgotten),
        )
        for changed in (self._changed_submissions, self._changed_pilots, self._forgotten):
            changed.clear()
        return changes

    # ---- submissions

    def submit(self, submission: Submission) -> None:
        """Its pilots may enrol from now on."""
        self._keep(submission)
        self._of[submission.name] = {}

    def _keep(self, submission: Submission) -> None:
        self._submissions[submission.name] = submission
        self._changed_submissions.add(submission.name)

    def revoke(self, session: str) -> None:
        """The join keys of a session are void; pilots that have enrolled stay what they are."""
        for submission in list(self._submissions.values()):
            if submission.session == session and not submission.revoked:
                self._keep(replace(submission, revoked=True))

    # ---- pilots

    def admit(self, name: str, key: bytes, now: float) -> Submission:
        """The submission whose join key is ``key``, if pilots may still enrol with it.

        Raises:
            ProxyError: they may not.
        """
        submission = self._submissions.get(name)
        if submission is None:
            raise ProxyError("no such submission")
        if not hmac.compare_digest(submission.key, key):
            raise ProxyError("not the submission's join key")
        if submission.revoked:
            raise ProxyError(f"its join key was revoked with session {submission.session}")
        if now >= submission.expires:
            raise ProxyError(f"its join key expired {now - submission.expires:.0f} s ago")
        return submission

    def enrol(self, name: str, applicant: Applicant, now: float) -> tuple[Identity, Identity | None]:
        """A payload becomes a pilot; returns who it is, and the older payload of its job that it replaces.

        The same key may enrol again, as when the answer was lost: it stays the same pilot.

        Raises:
            ProxyError: it must not, or it tells nonsense.
        """
        submission = self._submissions.get(name)
        if submission is None or submission.revoked or now >= submission.expires:
            raise ProxyError(f"submission {name} takes no pilots any more")
        if applicant.grid_user not in (None, submission.grid_user):
            raise ProxyError(f"it is a job of {applicant.grid_user}, not of {submission.grid_user}")
        job = check_name("job id", applicant.job_id)
        pilot = f"{job}-{hashlib.sha256(applicant.key).hexdigest()[:16]}"
        if pilot in self._identities:
            known = self.recognise(pilot, applicant.key)
            if known.submission != name:
                raise ProxyError("it enrols the key of another submission's pilot")
            return known, None
        older = self._of[name].get(job)
        if older is not None and applicant.began < older.began:
            raise ProxyError(superseded(job))
        if older is None and len(self._of[name]) >= submission.pilots:
            raise ProxyError(f"its join key is used up: {submission.pilots} jobs have enrolled with it")
        identity = Identity(
            pilot,
            applicant.key,
            name,
            submission.user,
            submission.session,
            job,
            applicant.began,
        )
        self._identities[pilot] = self._of[name][job] = identity
        self._changed_pilots.add(pilot)
        self._away[pilot] = now
        if older is not None:
            self.leave(older.pilot, superseded(job))
        return identity, older

    def recognise(self, pilot: str, key: bytes) -> Identity:
        """The pilot whose key is ``key``.

        Raises:
            ProxyError: there is none, or none any more.
        """
        known = self._identities.get(pilot)
        if known is None:
            raise ProxyError("no such pilot")
        if not hmac.compare_digest(known.key, key):
            raise ProxyError("not the pilot's key")
        return self.pilot(pilot)

    def pilot(self, pilot: str) -> Identity:
        """A pilot that has proved itself.

        Raises:
            ProxyError: it is none any more.
        """
        known = self._identities.get(pilot)
        if known is None or known.ended:
            raise ProxyError(f"it is no pilot any more: {known.ended if known else 'forgotten'}")
        return known

    def came(self, pilot: str) -> None:
        """A pilot is connected."""
        self._away.pop(pilot, None)

    def lost(self, pilot: str, now: float) -> None:
        """A pilot's connection is gone; it may come back within `AWAY_LIMIT`."""
        if pilot in self._identities:
            self._away[pilot] = now

    def leave(self, pilot: str, reason: str) -> None:
        """A pilot is none any more: it said goodbye, was told to go, or was replaced."""
        self._away.pop(pilot, None)
        if (known := self._identities.get(pilot)) and not known.ended:
            ended = self._identities[pilot] = replace(known, ended=reason)
            self._changed_pilots.add(pilot)
            jobs = self._of[known.submission]
            if jobs[known.job_id].pilot == pilot:
                jobs[known.job_id] = ended

    def tick(self, now: float) -> None:
        """Time has passed: pilots that stay away have ended, and what can never matter again is forgotten."""
        for pilot, since in list(self._away.items()):
            if now - since > AWAY_LIMIT:
                self.leave(pilot, f"it was away for {now - since:.0f} s")
        for name, submission in list(self._submissions.items()):
            if now >= submission.expires and all(one.ended for one in self._of[name].values()):
                del self._submissions[name], self._of[name]
                self._forgotten.add(name)
                self._identities = {p: one for p, one in self._identities.items() if one.submission != name}


def superseded(job_id: str) -> str:
    """Why the older of two payloads must go."""
    return f"a newer payload of job {job_id} has taken its place"
