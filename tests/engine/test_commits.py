from gridproof.engine.commits import CommitLog


def test_a_commit_is_accepted_once_and_repeated_messages_get_the_first_answer():
    log = CommitLog()
    assert log.claim("w1", 1, [1, 2]).accepted
    again = log.claim("w1", 1, [1, 2])
    assert again.accepted
    assert again.repeated
    assert len(log) == 2


def test_a_commit_with_a_committed_packet_is_discarded_whole_and_its_others_are_orphans():
    log = CommitLog()
    log.claim("w1", 1, [1])
    verdict = log.claim("w2", 1, [1, 2, 3])
    assert not verdict.accepted
    assert verdict.orphans == {2, 3}
    assert 2 not in log


def test_sequence_numbers_of_two_incarnations_do_not_collide():
    log = CommitLog()
    assert log.claim("w1", 1, [1]).accepted
    assert log.claim("w1-again", 1, [2]).accepted
