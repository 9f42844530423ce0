"""What a transfer says of itself."""

from decentra.rounds.flows import WINDOW_S, Flows, names


def test_a_sentence_names_phase_peers_bytes_to_come_and_the_rate_now_seen():
    flows = Flows()
    with flows.flow("the snapshot of entry 8", ("a" * 32, "b" * 32), 10_000_000, 100.0) as flow:
        flow.moved(2_000_000, 101.0)
        assert flow.sentence(102.0) == "the snapshot of entry 8 from aaaaaaaa, bbbbbbbb: 8.00 MB to come at 1.00 MB/s"
        assert flows.sentences(102.0) == [flow.sentence(102.0)] and flows.sentences(102.0, at_least_s=3.0) == []
        assert "8.00 MB to come at 0.00 MB/s" in flow.sentence(102.0 + WINDOW_S), "the rate is that of the last seconds"
    assert flows.sentences(102.0) == []


def test_many_transfers_are_counted_not_listed():
    flows = Flows()
    opened = [flows.flow(f"blob {number}", ("peer",), 1, 0.0) for number in range(9)]
    for each in opened:
        each.__enter__()
    assert len(flows.sentences(1.0)) == 5 and flows.sentences(1.0)[-1] == "5 more transfers"
    for each in opened:
        each.__exit__(None, None, None)


def test_names_of_few_are_listed_and_of_many_counted():
    assert names(()) == "nobody"
    assert names(("a" * 32,) * 6) == "aaaaaaaa, aaaaaaaa, aaaaaaaa, aaaaaaaa and 2 more"
