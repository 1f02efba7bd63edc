"""Who may join as a pilot: submissions, enrolments and identities, with time as an argument."""

from dataclasses import replace

import pytest

from gridproof.errors import ProxyError
from gridproof.proxy.admission.joining import AWAY_LIMIT, Applicant, Joining, Submission

NOW = 1e9
KEY = b"the join key"
SUBMISSION = Submission("sub", "alice", "al", "s", KEY, 2, NOW + 86400)


@pytest.fixture
def joining():
    joining = Joining()
    joining.submit(SUBMISSION)
    return joining


def payload(job="7", key=b"a", began=NOW, **changes):
    return replace(Applicant(job, key, began), **changes)


def enrol(joining, now=NOW, **changes):
    return joining.enrol("sub", payload(**changes), now)[0]


def test_a_pilot_enrols_its_own_key_and_is_known_by_it_from_then_on(joining):
    identity = enrol(joining)
    assert (identity.user, identity.job_id) == ("alice", "7")
    assert joining.recognise(identity.pilot, b"a") == identity
    with pytest.raises(ProxyError, match="not the pilot's key"):
        joining.recognise(identity.pilot, KEY)
    with pytest.raises(ProxyError, match="no such pilot"):
        joining.recognise("8-0011223344556677", b"a")


def test_a_join_key_is_good_for_its_submission_until_it_expires(joining):
    assert joining.admit("sub", KEY, NOW) == SUBMISSION
    for name, key, now, why in [
        ("other", KEY, NOW, "no such submission"),
        ("sub", b"another key", NOW, "not the submission's join key"),
        ("sub", KEY, NOW + 86400, "expired 0 s ago"),
    ]:
        with pytest.raises(ProxyError, match=why):
            joining.admit(name, key, now)


def test_a_revoked_join_key_admits_nobody_and_who_has_enrolled_stays(joining):
    early = enrol(joining)
    joining.revoke("s")
    with pytest.raises(ProxyError, match="revoked with session s"):
        joining.admit("sub", KEY, NOW)
    with pytest.raises(ProxyError, match="takes no pilots any more"):
        enrol(joining, job="8", key=b"b")
    assert joining.recognise(early.pilot, b"a") == early


def test_a_key_that_is_revoked_between_login_and_enrolment_enrols_nobody(joining):
    joining.admit("sub", KEY, NOW)
    with pytest.raises(ProxyError, match="takes no pilots any more"):
        enrol(joining, now=NOW + 86400)


def test_no_more_jobs_enrol_than_were_submitted(joining):
    enrol(joining, job="1", key=b"a")
    enrol(joining, job="2", key=b"b")
    with pytest.raises(ProxyError, match="used up: 2 jobs"):
        enrol(joining, job="3", key=b"c")


def test_a_job_that_ended_is_counted_still(joining):
    joining.leave(enrol(joining, job="1", key=b"a").pilot, "its time is over")
    enrol(joining, job="2", key=b"b")
    with pytest.raises(ProxyError, match="used up"):
        enrol(joining, job="3", key=b"c")


def test_an_enrolment_whose_answer_got_lost_is_repeated_and_counts_once(joining):
    first = enrol(joining, job="1")
    assert enrol(joining, job="1") == first
    enrol(joining, job="2", key=b"b")


def test_of_two_payloads_of_a_job_the_one_that_began_later_is_wanted(joining):
    early, late = payload(key=b"a", began=NOW - 600), payload(key=b"b", began=NOW)
    older, nobody = joining.enrol("sub", early, NOW)
    newer, replaced = joining.enrol("sub", late, NOW)
    assert (nobody, replaced) == (None, older)
    assert joining.recognise(newer.pilot, b"b") == newer
    with pytest.raises(ProxyError, match="a newer payload of job 7"):
        joining.recognise(older.pilot, b"a")
    with pytest.raises(ProxyError, match="a newer payload of job 7"):
        joining.enrol("sub", early, NOW)


def test_a_killed_payload_that_registers_late_does_not_drive_out_the_one_that_began_after_it(joining):
    newer = enrol(joining, key=b"b", began=NOW)
    for _ in range(2):
        with pytest.raises(ProxyError, match="a newer payload of job 7"):
            enrol(joining, key=b"a", began=NOW - 600)
    assert joining.recognise(newer.pilot, b"b") == newer


def test_a_killed_payload_stays_out_even_when_the_newer_one_has_ended(joining):
    joining.leave(enrol(joining, key=b"b", began=NOW).pilot, "done")
    with pytest.raises(ProxyError, match="a newer payload of job 7"):
        enrol(joining, key=b"a", began=NOW - 600)


def test_jobs_of_other_submissions_are_other_jobs(joining):
    joining.submit(replace(SUBMISSION, name="other", user="bob"))
    mine = enrol(joining)
    theirs, replaced = joining.enrol("other", payload(key=b"b", began=NOW + 1), NOW)
    assert (theirs.user, replaced) == ("bob", None)
    assert joining.recognise(mine.pilot, b"a") == mine
    with pytest.raises(ProxyError, match="another submission's pilot"):
        joining.enrol("other", payload(key=b"a"), NOW)


def test_a_pilot_that_has_left_is_none_any_more(joining):
    identity = enrol(joining)
    joining.leave(identity.pilot, "signal SIGTERM")
    with pytest.raises(ProxyError, match="no pilot any more: signal SIGTERM"):
        joining.recognise(identity.pilot, b"a")


def test_a_pilot_that_stays_away_has_ended_and_one_that_came_back_has_not(joining):
    away, back = enrol(joining, job="1"), enrol(joining, job="2", key=b"b")
    joining.came(back.pilot)
    joining.tick(NOW + AWAY_LIMIT)
    assert joining.recognise(away.pilot, b"a")
    joining.tick(NOW + AWAY_LIMIT + 1)
    with pytest.raises(ProxyError, match="away for 3601 s"):
        joining.recognise(away.pilot, b"a")
    assert joining.recognise(back.pilot, b"b")
    joining.lost(back.pilot, NOW + 9999)
    joining.tick(NOW + 9999 + AWAY_LIMIT + 1)
    with pytest.raises(ProxyError, match="away"):
        joining.recognise(back.pilot, b"b")


def test_an_expired_submission_is_forgotten_with_its_last_pilot(joining):
    identity = enrol(joining)
    joining.came(identity.pilot)
    joining.tick(NOW + 99999)
    with pytest.raises(ProxyError, match="expired"):
        joining.admit("sub", KEY, NOW + 99999)
    assert joining.recognise(identity.pilot, b"a")
    joining.leave(identity.pilot, "done")
    joining.tick(NOW + 99999)
    for asked in (lambda: joining.admit("sub", KEY, NOW), lambda: joining.recognise(identity.pilot, b"a")):
        with pytest.raises(ProxyError, match="no such"):
            asked()


@pytest.mark.parametrize("job", ["", "../7", "7\n8", "x" * 200])
def test_a_job_id_that_is_none_is_refused(joining, job):
    with pytest.raises(ProxyError, match="job id"):
        enrol(joining, job=job)


def test_what_was_kept_is_known_again():
    before = Joining()
    before.submit(SUBMISSION)
    older = enrol(before, key=b"a", began=NOW - 600)
    newer = enrol(before, key=b"b")
    other = enrol(before, job="8", key=b"c")
    older = replace(older, ended="replaced")
    after = Joining([SUBMISSION], [newer, older, other], NOW)
    assert after.recognise(newer.pilot, b"b") == newer
    with pytest.raises(ProxyError, match="replaced"):
        after.recognise(older.pilot, b"a")
    with pytest.raises(ProxyError, match="used up"):
        enrol(after, job="9", key=b"d")
    with pytest.raises(ProxyError, match="newer payload"):
        enrol(after, key=b"x", began=NOW - 1)
    after.tick(NOW + AWAY_LIMIT + 1)
    with pytest.raises(ProxyError, match="away"):
        after.recognise(other.pilot, b"c")


@pytest.mark.parametrize("turn", [1, -1])
def test_of_payloads_that_began_at_once_the_one_that_is_wanted_is_known_in_whatever_order_they_are_read(turn):
    before = Joining()
    before.submit(SUBMISSION)
    enrol(before, key=b"a")
    wanted = enrol(before, key=b"b")
    kept = before.take_changes().identities
    after = Joining([SUBMISSION], sorted(kept, key=lambda one: one.key)[::turn], NOW)
    assert after.enrol("sub", payload(key=b"c"), NOW)[1] == wanted
