"""The run of the demo, by codec."""

from __future__ import annotations

from pathlib import Path

import pytest

from decentra.config import CODECS, SPARSE_CODECS, CodecConfig
from decentra.sim.demo import Settings, demo_run


def settings(codec: str) -> Settings:
    return Settings(
        peers=4, rounds=20, link="", codec=codec, out=Path("out"), cache=Path("cache"), seed=0, time_limit_s=900.0, kill=""
    )


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_has_a_demo(codec: str) -> None:
    run = demo_run(settings(codec))
    assert run.codec.up == codec and run.codec.down not in SPARSE_CODECS


def test_what_is_sparse_is_gathered_with_error_feedback_and_no_outer_momentum() -> None:
    run = demo_run(settings("topk"))
    assert run.codec == CodecConfig(up="topk", down="int8", aggregate="gather", feedback=0.95)
    assert (run.outer.lr, run.outer.momentum) == (1.0, 0.0)
