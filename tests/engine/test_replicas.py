"""The order in which a worker tries a file's replicas."""

from gridproof.engine.replicas import SHUN_SECONDS, Preference, Replica

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
