"""How well percentiles of a load's latency are known. Pure, over its requests."""

from sweep.analysis.cell_data import CellData
from sweep.analysis.load_metrics import taken_s

FEWEST = 20
"""Fewest requests with which a percentile has an interval."""

ROUNDS = 400
"""Loads that are resampled from the measured one."""


def interval_s(data: CellData, q: float) -> tuple[float, float] | None:
    """95 % interval of percentile `q` in [0, 100] of the latency of judged requests, seconds; None for too few.

    Latency counts from sending, in an open load from when a request was due. Requests that overlap are not independent,
    so runs of consecutive ones are drawn, as long as the square root of their number (the moving-block bootstrap,
    Künsch 1989).
    """
    import numpy

    is_open = data.cell.config["load"]["name"] == "open"
    values = numpy.array([taken_s(one) if is_open else one.e2e_s for one in data.judged])
    count = len(values)
    if count < FEWEST:
        return None
    length = max(1, round(count**0.5))
    starts = numpy.random.default_rng(0).integers(0, count - length + 1, (ROUNDS, -(-count // length)))
    drawn: numpy.ndarray = values[(starts[:, :, None] + numpy.arange(length)).reshape(ROUNDS, -1)[:, :count]]
    low, high = numpy.percentile(numpy.percentile(drawn, q, axis=1), (2.5, 97.5)).tolist()
    return float(low), float(high)
