"""The rivals of the exchange benchmark, one process a peer: gloo's all_reduce in fp32, and hivemind's averager."""

from __future__ import annotations

import datetime
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from sims.benchmarks.crew import Captain, cpu_s

TILE = 1 << 20
SAMPLES = 2000
TOLERANCE = {"none": 1e-5, "fp16": 2e-3, "u8": 0.1, "bw8": 0.1}
"""What the averaged vector may be off by, as a share of its norm; one that was not averaged is off by more than 1."""


def noise(number: int) -> torch.Tensor:
    """(TILE,) fp32 of a peer; its vector repeats it."""
    return torch.randn(TILE, generator=torch.Generator().manual_seed(number))


def vector(number: int, num_elements: int) -> torch.Tensor:
    """(num_elements,) fp32 of a peer."""
    return noise(number).repeat(-(-num_elements // TILE))[:num_elements].contiguous()


def wanted(peers: int, num_elements: int) -> torch.Tensor:
    """(SAMPLES,) fp32: the mean over all peers at evenly spaced places."""
    where = torch.linspace(0, num_elements - 1, SAMPLES, dtype=torch.float64).long() % TILE
    return torch.stack([noise(number)[where] for number in range(peers)]).mean(dim=0)


def sampled(flat: torch.Tensor) -> torch.Tensor:
    """The same places of a whole vector."""
    return flat[torch.linspace(0, len(flat) - 1, SAMPLES, dtype=torch.float64).long()].clone()


def serve(captain: Captain, number: int, peers: int, target: torch.Tensor, average: Callable[[], float], tolerance: float) -> None:
    """Average when told to, as often as told to, from a fresh vector each time; matchmaking seconds are reported apart."""
    base, mean = vector(number, len(target)), wanted(peers, len(target))
    while True:
        target.copy_(base)
        captain.say("ready")
        if captain.hear() != "go":
            return
        start, cpu, fault, matchmaking_s = time.monotonic(), cpu_s(), "", 0.0
        try:
            matchmaking_s = average()
        except Exception as error:
            fault = repr(error)[:200]
        end = time.monotonic()
        off = float((sampled(target) - mean).norm() / mean.norm())
        if not fault and off > tolerance:
            fault = f"not averaged: off by {off:.3f}"
        captain.say({"start": start, "end": end, "matchmaking_s": matchmaking_s, "cpu_s": cpu_s() - cpu, "fault": fault, "error": off})


def gloo(captain: Captain, number: int, peers: int, num_elements: int, address: str, interface: str, port: str) -> None:
    """All-reduce in fp32."""
    import torch.distributed as dist

    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": port, "RANK": str(number), "WORLD_SIZE": str(peers)}
    os.environ["GLOO_SOCKET_IFNAME"] = interface
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=300))
    target = torch.empty(num_elements)

    def average() -> float:
        dist.all_reduce(target)
        target.div_(peers)
        return 0.0

    serve(captain, number, peers, target, average, TOLERANCE["none"])


def hivemind(captain: Captain, number: int, peers: int, num_elements: int, address: str, codec: str) -> None:
    """The averager."""
    import hivemind as hm

    options: dict[str, Any] = {"use_ipfs": False, "use_auto_relay": False, "use_relay": False}
    if number == 0:
        dht = hm.DHT(start=True, host_maddrs=[f"/ip4/{address}/tcp/0"], **options)
        captain.say(str(dht.get_visible_maddrs()[0]))
        captain.hear()
    else:
        captain.say("")
        first = captain.hear()
        dht = hm.DHT(start=True, initial_peers=[first], host_maddrs=[f"/ip4/{address}/tcp/0"], **options)
    averager = _averager(hm, dht, torch.zeros(num_elements), codec, peers)
    with averager.get_tensors() as tensors:
        target = tensors[0]
    serve(captain, number, peers, target, lambda: _step(averager, peers), TOLERANCE[codec])
    averager.shutdown()


def _averager(hm: Any, dht: Any, flat: torch.Tensor, name: str, peers: int) -> Any:
    from hivemind import compression

    codec = {
        "none": compression.NoCompression,
        "fp16": compression.Float16Compression,
        "u8": compression.Uniform8BitQuantization,
        "bw8": compression.BlockwiseQuantization,
    }[name]()
    return hm.DecentralizedAverager(
        [flat],
        dht,
        start=True,
        prefix=f"b{name}",
        target_group_size=peers,
        min_matchmaking_time=2.0,
        request_timeout=1.2,
        compression=codec,
    )


def _step(averager: Any, peers: int) -> float:
    """One averaging round; seconds until the group was found."""
    from hivemind.averaging.control import AveragingStage

    start = time.monotonic()
    control = averager.step(wait=False, timeout=500, allow_retries=False)
    while control.stage in (AveragingStage.IDLE, AveragingStage.LOOKING_FOR_GROUP) and not control.done():
        time.sleep(0.002)
    matchmaking_s = time.monotonic() - start
    group = control.result(500)
    if group is None or len(group) != peers:
        raise RuntimeError(f"a group of {0 if group is None else len(group)}")
    return matchmaking_s


def main() -> None:
    """Arguments: kind, peer's number, peers, elements, address of peer 0 (gloo) or of this one, then the kind's own."""
    torch.set_num_threads(1)
    captain, kind = Captain(), sys.argv[1]
    number, peers, num_elements = (int(text) for text in sys.argv[2:5])
    if kind == "gloo":
        gloo(captain, number, peers, num_elements, *sys.argv[5:8])
    else:
        hivemind(captain, number, peers, num_elements, sys.argv[5], sys.argv[6])
    os._exit(0)


if __name__ == "__main__":
    main()
