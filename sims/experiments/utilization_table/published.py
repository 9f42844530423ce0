"""What Streaming DiLoCo published (arXiv 2501.18512, its table of simulated compute utilization), and the grid that it lies on.

Gbit/s at which a link lets 50, 80, 90, 95, 99 % of the time be compute; H = 100, two replicas. All values are points of
numpy.logspace(-1, 3, 50), rounded to two places and then to one (0.954 -> 0.95 -> 0.9): a step is a factor of 1.207.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WANTED = (0.5, 0.8, 0.9, 0.95, 0.99)
STEPS_A_DECADE = 49 / 4
LAST_POINT = 49
"""The paper's grid ends at 1000 Gbit/s; ours goes on with the same steps where that is not enough."""


@dataclass(frozen=True, slots=True)
class Size:
    """A model of the paper. step_s: of pure compute. Three layers are a fragment."""

    name: str
    params: float
    layers: int
    step_s: float


SIZES = (Size("1B", 1e9, 24, 0.1), Size("10B", 10e9, 48, 0.8), Size("100B", 100e9, 108, 4.9))

TABLE = {
    "data-parallel": (
        (86.8, 152.6, 184.2, 222.3, 569.0), (104.8, 222.3, 222.3, 268.3, 471.5), (184.2, 323.8, 390.7, 390.7, 471.5),
    ),
    "diloco": ((1.4, 6.2, 13.3, 23.3, 86.8), (1.7, 7.5, 16.0, 33.9, 104.8), (3.0, 11.0, 23.3, 49.4, 184.2)),
    "streaming": ((1.4, 5.2, 9.1, 16.0, 28.1), (1.7, 5.2, 9.1, 13.3, 19.3), (2.4, 6.2, 9.1, 11.0, 19.3)),
    "overlap": ((1.4, 4.3, 6.2, 9.1, 11.0), (1.7, 3.6, 5.2, 6.2, 7.5), (1.7, 3.6, 4.3, 5.2, 5.2)),
    "overlap-fp4": ((0.4, 0.9, 1.7, 2.0, 3.0), (0.4, 0.9, 1.4, 1.4, 1.7), (0.5, 0.9, 1.1, 1.1, 1.4)),
}  # fmt: skip
"""By row; for each size, the Gbit/s for each of WANTED."""


def gbps(point: int) -> float:
    """The bandwidth of a grid point, 0 is 0.1 Gbit/s."""
    return float(10.0 ** (point / STEPS_A_DECADE - 1.0))


def shown(point: int) -> float:
    """A grid point as the paper prints it."""
    return round(round(gbps(point), 2), 1)


def point_of(printed: float) -> int:
    """The grid point that the paper prints so. Raises ValueError where there is none."""
    point = round((math.log10(printed) + 1.0) * STEPS_A_DECADE)
    for near in (point, point - 1, point + 1):
        if shown(near) == printed:
            return near
    raise ValueError(f"{printed:g} Gbit/s is no point of the grid; the nearest is {shown(point):g}")
