"""The order in which a worker tries a file's replicas."""

from gridproof.engine.replicas import SHUN_SECONDS, Attempts, Located, Preference, Replica

HERE = Replica("root://here//f1", "V::A::SE", "A")
THERE = Replica("root://there//f1", "V::B::SE", "B")
NEXT_HERE = Replica("root://here//f2", "V::A::SE", "A")
NEXT_THERE = Replica("root://there//f2", "V::B::SE", "B")


def order(preference, *replicas, avoid=(), now=0.0):
    return preference.order(replicas, avoid, now)


def test_the_own_site_comes_first_however_its_name_is_written():
    assert order(Preference("a"), THERE, HERE) == [HERE, THERE]
    assert Preference("a").is_local(HERE)
    assert not Preference("").is_local(Replica("/local/file"))


def test_what_failed_others_comes_later_and_what_failed_here_last():
    preference = Preference("A")
    assert order(preference, HERE, THERE, avoid=["V::A::SE"]) == [THERE, HERE]
    preference.failed(THERE, "Server responded with an error: no such file", 0.0)
    assert order(preference, HERE, THERE, avoid=["V::A::SE"]) == [HERE, THERE]


def test_a_file_that_cannot_be_read_says_nothing_of_its_se():
    preference = Preference("A")
    preference.failed(HERE, "Server responded with an error: [3011] no such file or directory", 0.0)
    assert order(preference, NEXT_HERE, NEXT_THERE) == [NEXT_HERE, NEXT_THERE]


def test_an_se_that_does_not_answer_is_left_alone_for_a_while():
    for words in ("[FATAL] Connection error", "[ERROR] Operation expired", "[ERROR] Socket timeout"):
        preference = Preference("A")
        preference.failed(HERE, words, 100.0)
        assert order(preference, NEXT_HERE, NEXT_THERE, now=101.0) == [NEXT_THERE, NEXT_HERE]
        assert order(preference, NEXT_HERE, NEXT_THERE, now=100.0 + SHUN_SECONDS) == [NEXT_HERE, NEXT_THERE]


def test_another_query_tries_bad_files_again_but_not_dead_ses_at_once():
    preference = Preference("A")
    preference.failed(HERE, "[FATAL] Connection error", 0.0)
    preference.forgive()
    assert order(preference, HERE, THERE, now=1.0) == [THERE, HERE]
    assert order(preference, HERE, THERE, now=SHUN_SECONDS) == [HERE, THERE]


class Grid:
    """Gives leave, a fresh one each time; ``offered``: the SEs it lets read from."""

    def __init__(self, *offered):
        self.offered = offered
        self.asked = []

    def __call__(self, files, anew=False):
        self.asked.append(anew)
        leave = len(self.asked)
        replicas = (Replica(f"root://{se}//f?authz=secret{leave}", se, se) for se in self.offered)
        return [Located(tuple(replicas)) for _ in files]


def attempt(grid, problems, replicas=("A", "B")):
    """Try the replicas; those with a problem (by URL or SE) fail. The one that is good, and the Attempts."""
    file = {"name": "/f", "kind": "lfn", "replicas": [(se, se) for se in replicas]}
    attempts = Attempts(file, grid, Preference(""), ())
    for replica in attempts.start(0.0):
        problem = problems.get(replica.url) or problems.get(replica.storage_element)
        if not problem:
            return replica, attempts
        attempts.fail(replica, problem, 0.0)
    return None, attempts


REFUSED = "[ERROR] Server responded with an error: [3010] Unable to open /f; Permission denied"


def test_leave_that_is_refused_is_asked_for_anew_and_the_same_se_tried_again():
    grid = Grid("A", "B")
    replica, attempts = attempt(grid, {"root://A//f?authz=secret1": REFUSED})
    assert (replica.url, grid.asked, attempts.failed) == ("root://A//f?authz=secret2", [False, True], [])


def test_fresh_leave_is_asked_for_once():
    grid = Grid("A", "B")
    replica, attempts = attempt(grid, {"A": REFUSED, "B": REFUSED})
    assert (replica, grid.asked, attempts.failed) == (None, [False, True], ["A", "B"])
    assert "secret" not in attempts.reason
    assert "root://B//f" in attempts.reason


def test_another_failure_leaves_the_leave_as_it_is():
    grid = Grid("A", "B")
    replica, attempts = attempt(grid, {"A": "[ERROR] no such file"})
    assert (replica.storage_element, grid.asked, attempts.failed) == ("B", [False], ["A"])


def test_ses_from_which_nobody_may_read_are_to_blame_too():
    assert attempt(Grid("A"), {"A": "broken"})[1].failed == ["B", "A"]
    assert attempt(Grid(), {})[1].failed == ["A", "B"]
    _, attempts = attempt(Grid(), {}, replicas=())
    assert (attempts.failed, attempts.reason) == ([""], "it has no replica")
