"""How long a server is busy with a batch, by how many requests are in it: measured samples, and sizes between them.

Knows no sweeps: seconds in, seconds out. `sweep.analysis.service_sources` decides which measurements are used.
"""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy

QUANTILES = 64
"""Values that stand for the distribution of a size that was not measured."""


@dataclass(frozen=True)
class ServiceTimes:
    """Seconds by requests in a batch, as measured; each value of a size is as likely as every other.

    Assumed: how long a batch takes does not depend on what waits, on what came before it, or on the server.
    """

    by_size: Mapping[int, Sequence[float]]  # requests in the batch -> seconds from its start until it is done
    pause_s: float = 0.0  # after each batch until the server takes the next one
    outside_s: Sequence[float] = (0.0,)  # what requests take except waiting and service: network, encoding, decoding

    def __post_init__(self) -> None:
        """Raises ValueError for what no measurement gives."""
        if not self.by_size or not all(self.by_size.values()) or not self.outside_s:
            raise ValueError("there are no service times")
        if min(self.by_size) < 1:
            raise ValueError("a batch has at least one request")
        times = [*(one for some in self.by_size.values() for one in some), self.pause_s, *self.outside_s]
        if not all(0 <= one < math.inf for one in times):
            raise ValueError("times are 0 or more, and finite")

    def knows(self, batch: int) -> bool:
        """Whether it says how long every batch of up to so many requests takes: two sizes give others, one does not."""
        return 1 in self.by_size if batch == 1 else len(self.by_size) > 1

    def mean_s(self, size: int) -> float:
        """Mean of a batch of so many requests. Raises ValueError as `of_size`."""
        values = self.of_size(size)
        return math.fsum(values) / len(values)

    def of_size(self, size: int) -> list[float]:
        """Sorted times of a batch of so many requests.

        A size that was not measured lies on the straight line through its neighbours, quantile by quantile; beyond
        them, on the line through the nearest two. Raises ValueError where only another size was measured.
        """
        if size in self.by_size:
            return sorted(self.by_size[size])
        known = sorted(self.by_size)
        if len(known) == 1:
            raise ValueError(f"only batches of {known[0]} were measured, which do not tell how long {size} take")
        right = min(max(bisect.bisect(known, size), 1), len(known) - 1)
        low, high = known[right - 1], known[right]
        share = (size - low) / (high - low)
        import numpy

        middles = (numpy.arange(QUANTILES) + 0.5) / QUANTILES
        a, b = (numpy.quantile(list(self.by_size[one]), middles) for one in (low, high))
        return sorted(max(0.0, float(one)) for one in a + share * (b - a))

    def table(self, batch: int) -> "tuple[numpy.ndarray, numpy.ndarray]":
        """Seconds (batch + 1, most samples) by size, padded with NaN, and how many samples each size has."""
        import numpy

        rows = [[math.nan], *(self.of_size(size) for size in range(1, batch + 1))]
        counts = numpy.array([len(row) for row in rows])
        table = numpy.full((batch + 1, int(counts.max())), math.nan)
        for size, row in enumerate(rows):
            table[size, : len(row)] = row
        return table, counts
