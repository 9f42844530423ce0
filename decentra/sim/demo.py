"""The demo: play a swarm of processes, then evaluate, generate, draw and sum up from what it left on disk."""

from __future__ import annotations

import dataclasses
import json
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from decentra import build
from decentra.config import SPARSE_CODECS, CodecConfig, InnerConfig, OuterConfig, RunConfig, check_run, config_hash, parse_link
from decentra.data.shards import unigram_entropy
from decentra.data.tokenizer import Tokenizer
from decentra.errors import ConfigError, SetupError
from decentra.model.generate import generate
from decentra.model.presets import preset
from decentra.observe.plot import plot_run
from decentra.observe.summary import losses, summarize
from decentra.sim.kills import ROLES, kills
from decentra.sim.offline import open_state
from decentra.sim.processes import Play, ProcessSwarm, Show
from decentra.train.evaluate import evaluate

PROMPTS = ("def ", "import ", "The ")
LINE_TOKENS = 40
STREAMING_STEPS, STREAMING_FRAGMENTS = 80, 2
TEMPERATURE = 0.5


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says."""

    peers: int
    rounds: int
    link: str
    codec: str
    out: Path
    cache: Path
    seed: int
    time_limit_s: float
    kill: str
    streaming: bool
    inner_steps: int


def demo_run(settings: Settings) -> RunConfig:
    """The run of the demo: a Llama of 2.7 million parameters."""
    outer, codec = _outer_part(settings)
    run = RunConfig(
        name="demo",
        seed=settings.seed,
        start_members=settings.peers,
        stop_syncs=settings.rounds * outer.fragments,
        eval_samples=32,
        model=preset("demo"),
        inner=InnerConfig(lr=3e-3, warmup_tokens=50_000, batch_samples=4),
        outer=outer,
        codec=codec,
    )
    check_run(run, "decentra demo")
    parse_link(settings.link)
    roles_of(settings.kill)
    return run


def _outer_part(settings: Settings) -> tuple[OuterConfig, CodecConfig]:
    """A dense codec travels both ways; what is sparse is gathered, with error feedback in place of the outer momentum
    (SparseLoCo, arXiv 2508.15706). Streaming: two fragments, and most of a slot overlaps with the round before.
    """
    codec, outer = settings.codec, OuterConfig(inner_steps=25, lr=0.7, momentum=0.9)
    if settings.streaming:
        outer = dataclasses.replace(outer, inner_steps=settings.inner_steps or STREAMING_STEPS, fragments=STREAMING_FRAGMENTS)
        outer = dataclasses.replace(outer, overlap_steps=outer.slot_steps * 9 // 10)
    elif settings.inner_steps:
        outer = dataclasses.replace(outer, inner_steps=settings.inner_steps)
    if codec in SPARSE_CODECS:
        return dataclasses.replace(outer, optimizer="sgd", lr=2.0), CodecConfig(up=codec, aggregate="gather", feedback=0.95)
    return outer, CodecConfig(up=codec, down=codec)


def roles_of(kill: str) -> list[str]:
    """The roles that --kill names, in order. Raises ConfigError."""
    roles = [role.strip() for role in kill.split(",") if role.strip()]
    for role in roles:
        if role not in ROLES:
            raise ConfigError(f"--kill {kill!r}: role {role!r} is not known; name {' and '.join(ROLES)}, with commas, or give ''")
    return roles


def make_out(out: Path) -> None:
    """An empty directory for the report; only that of a former demo is emptied. Raises ConfigError."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out} is a file; give a directory")
    if out.is_dir() and any(out.iterdir()):
        if not ((out / "run.toml").exists() and (out / "bootstrap.log").exists()):
            raise ConfigError(f"--out {out} holds files that are no demo's; give an empty or a new directory")
        shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)


async def play_demo(settings: Settings, run: RunConfig, show: Show) -> ProcessSwarm:
    """The swarm after its end. Raises SetupError where it did not start or did not end."""
    make_out(settings.out)
    join_at = max(1, run.stop_syncs // 3)
    killed = kills(roles_of(settings.kill), join_at, run.stop_syncs)
    play = Play(run, settings.peers, settings.link, settings.out, settings.cache, join_at, killed, settings.time_limit_s)
    async with ProcessSwarm(play, build.wiring(), show) as swarm:
        await swarm.begin()
        await swarm.watch(build.decode_door(swarm.join_string))
    return swarm


def report(settings: Settings, run: RunConfig, swarm: ProcessSwarm) -> tuple[dict[str, Any], list[str]]:
    """(summary, lines for people), from what the swarm left on disk. Raises SetupError where nothing came of it."""
    torch.set_num_threads(1)  # so small a model only waits for a second thread, and long where the machine is busy
    ended, gone = swarm.final_statuses()
    if not ended or not any(r["sync"] is not None for status in ended for r in status["rounds"]):
        raise SetupError(f"no peer reached the end of an outer step; the logs are in {settings.out}")
    survivor = swarm.ended_well()[0]
    opened = open_state(survivor.state)
    reached = opened.restore()
    model, heldout = opened.model(), build.heldout(run, survivor.state / "files")
    unigram = unigram_entropy(np.asarray(heldout.shard.tokens))
    summary = summarize(
        ended,
        seed=run.seed,
        config_hash=config_hash(run),
        loss_last=evaluate(model, heldout),
        joined_late=swarm.joined_late,
        killed=swarm.killed,
        contribution_bytes=opened.run.contribution_bytes(),
        wall_s=swarm.elapsed_s(),
        stopped=gone,
    )
    summary["kills"] = [{**kill, "attempts": _attempts(ended, kill["entry"])} for kill in swarm.kills]
    summary["unigram_entropy"] = unigram
    summary["finished"] = len(ended) == len(swarm.daemons) - len(swarm.killed) and summary["rounds_committed"] == run.stop_syncs
    summary["replayed_hash"] = reached.state_hash.hex()
    summary["killed_lease_returned"] = all(peer not in reached.state.peers() and peer not in reached.state.leases for peer in swarm.killed)
    (settings.out / "summary.json").write_text(json.dumps(summary, indent=1))
    everyone = sorted([*ended, *gone], key=lambda s: s["peer"])
    loss = {**losses(everyone), run.stop_syncs: summary["loss_last"]}
    title = f"{settings.peers} + 1 peers, {settings.link or 'unshaped'}, {settings.codec}, {summary['rounds_committed']} outer steps"
    plot_run(settings.out / "loss.png", everyone, loss, unigram, swarm.events, title, run.outer.ahead_steps > 0)
    return summary, [*_headline(summary, settings.out), *_samples(model, (survivor.state / "files/tokenizer.model").read_bytes(), run)]


def _attempts(statuses: list[dict[str, Any]], entry: int) -> int | None:
    """How many attempts an entry took, by a peer that saw it agreed."""
    return next((r["attempts"] for status in statuses for r in status["rounds"] if r["entry"] == entry), None)


def _headline(summary: dict[str, Any], out: Path) -> list[str]:
    hashes = sorted(set(summary["state_hash"].values()))
    same = "the same state hash" if summary["hashes_equal"] and len(hashes) == 1 else "DIFFERENT state hashes"
    killed = ", ".join(f"{kill['role']} {kill['peer'][:8]} in its {kill['phase']}" for kill in summary["kills"]) or "nobody"
    back = " (leases went back to the pool)" if summary["killed"] and summary["killed_lease_returned"] else ""
    first = "?" if summary["loss_first"] is None else f"{summary['loss_first']:.2f}"
    lines = [
        f"{summary['rounds_committed']} outer steps, {summary['tokens_committed']:,} tokens in {summary['wall_s']:.0f} s; "
        f"held-out loss {first} -> {summary['loss_last']:.2f} nats (unigram {summary['unigram_entropy']:.2f})",
        f"{len(summary['state_hash'])} live peers, {same} {hashes[0][:16]}; joined late: "
        f"{', '.join(p[:8] for p in summary['joined_late']) or 'nobody'}; killed: {killed}{back}",
        f"{summary['bytes_per_round_per_peer'] / 1e6:.2f} MB a round and peer, {summary['compression_ratio']:.2f} times less than fp32; "
        f"{summary['compute_utilization']:.0%} of the time in inner steps",
        f"report: {out}/summary.json, {out}/loss.png; logs beside them",
    ]
    if not summary["finished"]:
        lines.append(f"NOT FINISHED: {len(summary['state_hash'])} peers reached the end; the others' logs are in {out}")
    return [*lines, ""]


def _samples(model: Any, tokenizer_bytes: bytes, run: RunConfig) -> list[str]:
    tokenizer = Tokenizer(tokenizer_bytes)
    lines = ["what the anchor writes:"]
    with torch.no_grad():
        for index, prompt in enumerate(PROMPTS):
            ids = [tokenizer.bos, *tokenizer.encode(prompt)]
            made = generate(model, ids, LINE_TOKENS, TEMPERATURE, run.seed + index, run.data.context)
            text = " ".join(tokenizer.decode([*ids[1:], *made]).split())
            lines.append("  " + textwrap.shorten(text, 110, placeholder=" ..."))
    return lines
