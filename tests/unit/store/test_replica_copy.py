"""The copy of the shared rows on disk: what a daemon that was killed finds there."""

from __future__ import annotations

from pathlib import Path

from dari.store.base import Row
from dari.store.replica import Replica


async def test_what_this_host_committed_itself_is_there_at_once(tmp_path: Path) -> None:
    copy = str(tmp_path / "shared.db")
    killed = Replica("etcd://somewhere", copy)
    killed.adopt_cluster("c")
    killed.committed({"endpoints/n/e": b"active", "leases/n/a": b"e"}, (), 7)
    killed.committed({"endpoints/n/e": b"inactive"}, ("leases/n/a",), 8)
    again = Replica("etcd://somewhere", copy)
    assert {key: row.value for key, row in again.mirror.rows.items()} == {"endpoints/n/e": b"inactive"}
    assert again.cluster_id == "c"
    for each in (again, killed):
        each.close()


async def test_what_it_hangs_on_is_there_with_it(tmp_path: Path) -> None:
    """A network another host made a moment ago: without its row an endpoint on it is nothing."""
    copy = str(tmp_path / "shared.db")
    killed = Replica("etcd://somewhere", copy)
    killed.adopt_cluster("c")
    killed.mark = "6"
    killed.seen({"networks/n": Row(b"wide", 5)}, {}, 6)
    killed.committed({"endpoints/n/e": b"active"}, (), 7)
    again = Replica("etcd://somewhere", copy)
    assert dict(again.mirror.rows) == {"networks/n": Row(b"wide", 5), "endpoints/n/e": Row(b"active", 7)}
    assert again.mark == "6"
    for each in (again, killed):
        each.close()
