"""Join strings: what goes in comes out, and each way of breaking one is said in one sentence."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decentra.errors import JoinStringError
from decentra.identity.invite import PREFIX, Entrance, Invite, decode, encode
from decentra.identity.keys import base32_of

PEER = base32_of(bytes(range(20)))
INVITE = Invite(
    bytes(range(16)),
    bytes(range(32)),
    b"t" * 16,
    ("/ip4/127.0.0.1/tcp/4000/p2p/12D3KooWKCcHR73GM8RoqJaLQWHQPiKycwTbZWp9DnvttCYFo6Wp",),
    (Entrance("127.0.0.1:41000", PEER), Entrance("[::1]:41001")),
)

addresses = st.lists(st.text(min_size=1, max_size=40), max_size=4).map(tuple)
invites = st.builds(
    Invite,
    run_id=st.binary(min_size=16, max_size=16),
    founder_key=st.binary(min_size=32, max_size=32),
    token=st.one_of(st.just(b""), st.binary(min_size=16, max_size=16)),
    dht=addresses,
    entrances=st.lists(st.builds(Entrance, st.text(min_size=1, max_size=40), st.sampled_from(["", PEER])), max_size=4).map(tuple),
)


@given(invites)
def test_what_goes_in_comes_out(invite: Invite) -> None:
    text = encode(invite)
    assert text.startswith(PREFIX) and text.isalnum() and text == text.lower()
    assert decode(text) == invite


def test_a_string_survives_line_breaks_and_capitals() -> None:
    text = encode(INVITE)
    assert decode(f"  {text[:50]}\n   {text[50:].upper()}\n") == INVITE


def test_more_than_four_addresses_are_left_out() -> None:
    many = Invite(INVITE.run_id, INVITE.founder_key, b"", tuple("abcdef"), ())
    assert decode(encode(many)).dht == tuple("abcd")


@pytest.mark.parametrize("text", ["", "hello", "decentra2abc", "http://example.org"])
def test_a_wrong_prefix_is_named(text: str) -> None:
    with pytest.raises(JoinStringError, match="does not begin with 'decentra1'"):
        decode(text)


def test_a_character_that_cannot_stand_is_named_with_its_place() -> None:
    text = encode(INVITE)
    with pytest.raises(JoinStringError, match=r"'!' at position 21"):
        decode(text[:20] + "!" + text[21:])


def test_every_truncation_is_refused_as_cut_off() -> None:
    text = encode(INVITE)
    for length in range(len(PREFIX), len(text)):
        with pytest.raises(JoinStringError, match="cut off"):
            decode(text[:length])


def test_a_changed_character_is_refused() -> None:
    text = encode(INVITE)
    for position in range(len(PREFIX), len(text) - 1):
        changed = "a" if text[position] != "a" else "b"
        with pytest.raises(JoinStringError, match=r"cut off|checksum"):
            decode(text[:position] + changed + text[position + 1 :])
    with pytest.raises(JoinStringError, match="checksum"):
        decode(text[:12] + ("a" if text[12] != "a" else "b") + text[13:])
