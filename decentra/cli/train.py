"""`decentra train`: the trainer of a node, without a swarm."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from decentra.cli.options import read
from decentra.errors import ConfigError

if TYPE_CHECKING:
    from decentra.train.alone import Point


@dataclass(frozen=True)
class Options:
    """Train the model of a run file on this machine alone, with the steps a node would take between two rounds; no network.

    Killed, the same command goes on from its newest checkpoint as if it had never stopped.

    Example: decentra train nodes/configs/tiny.toml --steps 200 --out out/train
    """

    config: tyro.conf.Positional[Path]
    """Run file; [run.outer] and [run.codec] are not used."""
    out: Path = Path("out/train")
    """Where checkpoints, the run's files and summary.json go; decentra eval, generate and export read it."""
    steps: int = 0
    """Inner steps in all; 0: as many as run.stop_tokens says."""
    eval_every: int = 50
    """Steps from one held-out loss to the next."""
    save_every: int = 200
    """Steps from one checkpoint to the next."""
    cache: Path = Path(".data")
    """Where the text is built."""
    json: bool = False


def main(arguments: list[str]) -> int:
    """Train, print, sum up."""
    options = read(Options, arguments, "train")
    for name, value in (("eval-every", options.eval_every), ("save-every", options.save_every)):
        if value < 1:
            raise ConfigError(f"--{name} {value} must be at least 1")
    from decentra import build
    from decentra.config import load
    from decentra.scaling.flops import flop_per_token
    from decentra.sim.offline import keep_run
    from decentra.train.alone import Plan, train_alone

    config = load(options.config)
    run, node = config.run, config.node
    step_tokens = run.inner.batch_samples * run.data.context
    steps = options.steps or run.stop_tokens // step_tokens
    if steps < 1:
        raise ConfigError(f"--steps {options.steps} and run.stop_tokens = {run.stop_tokens} name no end; give one of them")
    build.set_threads(node.trainer_threads)
    text = build.text(run, options.cache)
    folder = keep_run(options.out, run, text.files)
    replica, source, heldout = build.outfit(run, folder, node.micro_batch, node.device, node.on_bad_step)

    flop = flop_per_token(run.llama, run.data.context)

    def tell(point: Point) -> None:
        if not options.json:
            line = f"step {point.step:>6} of {steps}   loss {point.loss:.3f}   held-out {point.heldout_loss:.3f}   "
            rate = f"{point.tokens_per_s:,.0f} tokens/s, {point.tokens_per_s * flop / 1e9:,.1f} GFLOP/s as torchtitan counts"
            print(line + f"{point.tokens:,} tokens   {rate}", flush=True)

    plan = Plan(steps, options.eval_every, options.save_every)
    last = train_alone(replica, source, heldout, run, plan, options.out / "checkpoints", tell)
    summary = {"steps": last.step, "tokens": last.tokens, "heldout_loss": last.heldout_loss, "tokens_per_s": last.tokens_per_s}
    (options.out / "summary.json").write_text(json.dumps(summary, indent=1))
    if options.json:
        print(json.dumps(summary))
    else:
        print(f"{last.step} steps, {last.tokens:,} tokens: held-out loss {last.heldout_loss:.4f}; {options.out}")
    return 0
