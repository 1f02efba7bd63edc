"""What a master keeps of queries that are over, for how long, and what it tells its ProxyServer of that."""

import pytest

from gridproof.errors import QueryError

SPEC = {
    "selector": None,
    "class_name": "TSelector",
    "option": "",
    "input": b"",
    "on_missing": "fail",
    "feedback": 1.0,
    "commit": "interval",
    "title": "nobody runs this",
    "parts": [
        {"tree": "t", "alias": "", "files": [{"name": "f", "kind": "path", "size": 1, "replicas": []}]}
    ],
}


def test_a_query_that_is_over_is_forgotten_after_its_time(brief_cluster):
    query = brief_cluster.send("submit", spec=SPEC)
    assert brief_cluster.told() == {"running": 1, "kept": 0}
    (about,) = brief_cluster.send("queries")
    assert (about["title"], about["over"], about["kept_until"]) == ("nobody runs this", False, 0)
    brief_cluster.send("cancel", query=query)
    assert brief_cluster.told() == {"running": 0, "kept": 1}
    over = brief_cluster.send("follow", query=query, version=1 << 62, wait=10)
    assert over["kept_until"] > about["submitted"]
    assert brief_cluster.told() == {"running": 0, "kept": 0}
    assert not brief_cluster.send("queries")
    with pytest.raises(QueryError, match="is not known to the master"):
        brief_cluster.send("result", query=query)
