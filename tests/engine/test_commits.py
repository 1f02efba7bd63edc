from gridproof.engine.commits import CommitLog


def test_a_commit_is_accepted_once_and_repeated_messages_get_the_first_answer():
    log = CommitLog(live := dict.fromkeys((1, 2)))
    assert log.claim("w1", 1, [1, 2]).accepted
    again = log.claim("w1", 1, [1, 2])
    assert again.accepted
    assert again.repeated
    assert not live


def test_a_commit_with_a_committed_packet_is_discarded_whole_and_its_others_are_orphans():
    log = CommitLog(live := dict.fromkeys((1, 2, 3)))
    log.claim("w1", 1, [1])
    verdict = log.claim("w2", 1, [1, 2, 3])
    assert not verdict.accepted
    assert verdict.orphans == {2, 3}
    assert set(live) == {2, 3}


def test_sequence_numbers_of_two_incarnations_do_not_collide():
    log = CommitLog(dict.fromkeys((1, 2)))
    assert log.claim("w1", 1, [1]).accepted
    assert log.claim("w1-again", 1, [2]).accepted


def test_an_older_message_that_comes_again_late_does_not_count():
    log = CommitLog(dict.fromkeys((1, 2)))
    log.claim("w1", 1, [1])
    log.claim("w1", 2, [2])
    late = log.claim("w1", 1, [1])
    assert late.repeated
    assert not late.accepted


def test_a_commit_with_a_packet_that_is_void_is_discarded_whole():
    assert CommitLog({1: None}).claim("w1", 1, [1, 2]).orphans == {1}
