"""What is judged of a message before it is read."""

import pytest

from decentra.rounds import bounds
from decentra.wire.v1 import rounds_pb2, state_pb2, swarm_pb2


def test_a_request_names_one_kind_and_is_weighed_by_it():
    query = rounds_pb2.Request(run_id=b"r" * 16, head=state_pb2.HeadQuery()).SerializeToString()
    assert bounds.kind_of(query) == "head"
    assert bounds.kind_of(rounds_pb2.Request(close=rounds_pb2.Close(roots=[b"x" * 300])).SerializeToString()) == "close"
    for broken in (b"", b"\x0a\x01r", query + query, query[:-1] + b"\x05", query + b"\x08\x01", b"\xff" * 20, query + b"\x4a"):
        with pytest.raises(ValueError, match="are not one request"):
            bounds.kind_of(broken)
    assert bounds.max_request_bytes("close", 4) == bounds.BASE_BYTES + 4 * bounds.MAX_OFFER_BYTES > bounds.max_request_bytes("close", 3)


def test_an_entry_of_too_many_elements_is_refused_whichever_list_holds_them() -> None:
    many = bounds.MAX_LIST + 1
    interval, lease = swarm_pb2.Interval(start=1, stop=2), swarm_pb2.Lease(intervals=[swarm_pb2.Interval()] * (many // 2 + 1))
    for entry in (
        swarm_pb2.Entry(heard=["a"] * many),
        swarm_pb2.Entry(next_parts=[swarm_pb2.Part()] * many),
        swarm_pb2.Entry(returned=[lease], granted=[lease]),
        swarm_pb2.Entry(counted=[swarm_pb2.Counted(claim=[interval] * many)]),
        swarm_pb2.Entry(sums=[swarm_pb2.Sum(terms=[swarm_pb2.Term()] * many)]),
    ):
        assert "over the limit of 16384" in bounds.lists_fault(entry)
    assert bounds.lists_fault(swarm_pb2.Entry(heard=["a"] * (many - 1), granted=[lease])) == ""


def test_every_kind_of_request_has_one_kind_of_reply() -> None:
    kinds = [f.name for f in rounds_pb2.Request.DESCRIPTOR.oneofs_by_name["kind"].fields]
    assert sorted(bounds.REPLY_TO) == sorted(kinds)
    assert set(bounds.REPLY_TO.values()) == {f.name for f in rounds_pb2.Reply.DESCRIPTOR.oneofs_by_name["kind"].fields}
