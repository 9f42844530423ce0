"""The run of the demo, by codec."""

from __future__ import annotations

from pathlib import Path

import pytest

from decentra.config import CODECS, SPARSE_CODECS, CodecConfig
from decentra.errors import ConfigError
from decentra.sim.demo import Settings, demo_run


def settings(codec: str, streaming: bool = False, inner_steps: int = 0) -> Settings:
    return Settings(
        peers=4, rounds=20, link="", codec=codec, out=Path("out"), cache=Path("cache"), seed=0, time_limit_s=900.0, kill="",
        streaming=streaming, inner_steps=inner_steps,
    )  # fmt: skip


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_has_a_demo(codec: str) -> None:
    run = demo_run(settings(codec))
    assert run.codec.up == codec and run.codec.down not in SPARSE_CODECS


def test_what_is_sparse_is_gathered_with_error_feedback_and_no_outer_momentum() -> None:
    run = demo_run(settings("topk"))
    assert run.codec == CodecConfig(up="topk", down="int8", aggregate="gather", feedback=0.95)
    assert (run.outer.lr, run.outer.optimizer) == (2.0, "sgd")


def test_streaming_syncs_the_whole_model_as_often_in_as_many_steps_a_fragment_at_a_time() -> None:
    plain, stream = (demo_run(settings("int8", streaming, inner_steps=40)) for streaming in (False, True))
    assert (plain.outer.fragments, plain.outer.overlap_steps, plain.stop_syncs) == (1, 0, 20)
    assert (stream.outer.fragments, stream.outer.overlap_steps, stream.stop_syncs) == (2, 18, 40)
    assert plain.outer.inner_steps == stream.outer.inner_steps == 40
    assert demo_run(settings("int8")).outer.inner_steps == 25


def test_steps_that_no_two_fragments_can_share_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"decentra demo: run\.outer\.inner_steps = 25 must divide by outer\.fragments = 2"):
        demo_run(settings("int8", streaming=True, inner_steps=25))
