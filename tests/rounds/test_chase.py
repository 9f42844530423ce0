"""Whom a member follows when it is said to be behind."""

from decentra.rounds.chase import Chases


def test_who_led_nowhere_is_believed_later_each_time_and_who_led_on_at_once():
    chases = Chases()
    assert chases.believes("a", 0.0)
    chases.ended("a", False, 10.0, 4.0)
    assert not chases.believes("a", 13.9) and chases.believes("a", 14.0) and chases.believes("b", 10.0)
    for _ in range(9):
        chases.ended("a", False, 20.0, 4.0)
    assert not chases.believes("a", 20.0 + 63.9) and chases.believes("a", 20.0 + 64.0)
    chases.ended("a", True, 20.0, 4.0)
    assert chases.believes("a", 20.0)
    chases.ended("b", False, 20.0, 4.0)
    chases.keep_only(["a"])
    assert chases.vain == {}
