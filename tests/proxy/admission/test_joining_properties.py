"""Whatever happens in whatever order, however often the ProxyServer is killed: who may join is the same."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gridproof.errors import ProxyError
from gridproof.proxy.admission.joining import AWAY_LIMIT, Applicant, Joining, Submission

PILOTS, LIFETIME = 2, 3 * AWAY_LIMIT
NAMES = ("one", "two")


class Door(RuleBasedStateMachine):
    """Submissions come and are revoked; payloads enrol, redial, leave and stay away; the server is killed."""

    def __init__(self):
        super().__init__()
        self.now = 1e9
        self.joining = Joining()
        self.submissions = {}  # what is on the disk
        self.identities = {}
        self.known = {}  # pilot -> its key, of all that were ever welcomed
        self.connected = set()
        self.revoked = set()

    def keep(self):
        changes = self.joining.take_changes()
        if changes is None:
            return
        self.submissions |= {submission.name: submission for submission in changes.submissions}
        self.identities |= {identity.pilot: identity for identity in changes.identities}
        for name in changes.forgotten:
            self.submissions.pop(name, None)
            self.identities = {p: one for p, one in self.identities.items() if one.submission != name}

    def is_pilot(self, pilot):
        try:
            return self.joining.recognise(pilot, self.known[pilot]).pilot == pilot
        except ProxyError:
            return False

    @rule(name=st.sampled_from(NAMES))
    def submit(self, name):
        if name not in self.submissions:
            expires = self.now + LIFETIME
            self.joining.submit(Submission(name, "me", "me", name, name.encode(), PILOTS, expires))
            self.revoked.discard(name)
            self.keep()

    @rule(
        name=st.sampled_from(NAMES),
        job=st.sampled_from("123"),
        key=st.sampled_from([b"a", b"b", b"c"]),
        ago=st.sampled_from([0, 600]),
    )
    def enrol(self, name, job, key, ago):
        key = name.encode() + job.encode() + key
        try:
            self.joining.admit(name, name.encode(), self.now)
            pilot, older = self.joining.enrol(name, Applicant(job, key, self.now - ago), self.now)
        except ProxyError:
            return
        self.keep()
        assert name not in self.revoked
        assert not pilot.ended
        assert older is None or not self.is_pilot(older.pilot)
        self.known[pilot.pilot] = key

    @rule(data=st.data(), how=st.sampled_from(["came", "lost", "leave"]))
    def pilot_event(self, data, how):
        if not self.known:
            return
        pilot = data.draw(st.sampled_from(sorted(self.known)))
        if how == "came" and self.is_pilot(pilot):
            self.joining.came(pilot)
            self.connected.add(pilot)
        elif how == "lost":
            self.joining.lost(pilot, self.now)
            self.connected.discard(pilot)
        elif how == "leave":
            self.joining.leave(pilot, "goodbye")
            self.connected.discard(pilot)
            assert not self.is_pilot(pilot)
        self.keep()

    @rule(name=st.sampled_from(NAMES))
    def revoke(self, name):
        before = {pilot for pilot in self.known if self.is_pilot(pilot)}
        self.joining.revoke(name)
        if name in self.submissions:
            self.revoked.add(name)
        self.keep()
        assert {pilot for pilot in self.known if self.is_pilot(pilot)} == before

    @rule(seconds=st.sampled_from([1.0, AWAY_LIMIT / 2, AWAY_LIMIT + 1, LIFETIME]))
    def time_passes(self, seconds):
        self.now += seconds
        self.joining.tick(self.now)
        self.connected = {pilot for pilot in self.connected if self.is_pilot(pilot)}
        self.keep()

    @rule()
    def the_server_is_killed(self):
        before = {pilot for pilot in self.known if self.is_pilot(pilot)}
        identities = [self.identities[pilot] for pilot in sorted(self.identities)]  # as a disk gives them
        self.joining = Joining(self.submissions.values(), identities, self.now)
        self.connected.clear()
        assert {pilot for pilot in self.known if self.is_pilot(pilot)} == before

    @invariant()
    def one_pilot_for_each_job_and_no_more_jobs_than_were_submitted(self):
        for name in NAMES:
            own = [one for one in self.identities.values() if one.submission == name]
            assert len({one.job_id for one in own}) <= PILOTS
            alive = [one.job_id for one in own if not one.ended]
            assert len(alive) == len(set(alive))

    @invariant()
    def who_is_connected_is_a_pilot_until_something_ends_it(self):
        for pilot in self.connected:
            own = self.identities[pilot]
            newest = [one for one in self.identities.values() if one.submission == own.submission]
            replaced = any(
                one.job_id == own.job_id and one.began >= own.began for one in newest if one != own
            )
            assert self.is_pilot(pilot) or replaced


TestDoor = Door.TestCase
TestDoor.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
