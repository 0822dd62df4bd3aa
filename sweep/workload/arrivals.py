"""When requests of an open load are due: laws of arrival. Pure: a law, a rate and a seed in, times out.

Times are seconds since the load began, in ascending order. They are intended ones: a late send is late against
them, and never moves them (otherwise a stall would hide the requests that it kept waiting).
"""

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from sweep.config.load import LAWS
from sweep.refusals import ConfigError, require


def times(law: str, rate: float, seed: int, burstiness: float = 1.0, burst: int = 8) -> Iterator[float]:
    """Endless times at which requests are due, `rate` a second on average, the same for the same seed.

    constant: every 1 ÷ rate seconds. poisson: independent of one another. gamma: gaps of shape `burstiness` (vLLM's
    definition: below 1 they cluster, 1 is poisson, large is nearly constant). burst: half of the rate at constant
    gaps, the other half in bursts of `burst` requests at once, whose arrivals are poisson.
    """
    require(law in LAWS, f"load.arrivals={law}: choose {', '.join(LAWS[:-1])} or {LAWS[-1]}")
    require(rate > 0, f"load.request_rate={rate}: must be more than 0 requests a second")
    require(burstiness > 0, f"load.burstiness={burstiness}: must be more than 0")
    require(burst >= 1, f"load.burst={burst}: must be at least 1 request")
    rng = random.Random(f"arrivals {seed}")
    if law == "constant":
        return (number / rate for number in itertools.count())
    if law == "burst":
        return _bursts(rate, rng, burst)
    shape = 1.0 if law == "poisson" else burstiness
    return _renewals(lambda: rng.gammavariate(shape, 1 / (rate * shape)))


def ramped(times: Iterator[float], ramp_s: float) -> Iterator[float]:
    """The same arrivals while the rate grows from 0 to what it is, linearly over `ramp_s` seconds.

    The n-th request is due when as many are expected as were at its own time, so half as many are due during the ramp.
    """
    for time_s in times:
        yield math.sqrt(2 * ramp_s * time_s) if time_s < ramp_s / 2 else time_s + ramp_s / 2


def recorded(path: Path) -> list[float]:
    """Times of a recorded trace, the first moved to 0: one a line, in seconds, or JSON with `timestamp` in ms.

    Raises ConfigError with one line for the user.
    """
    asked = f"load.trace={path}"
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        found = sorted(map(_time_of, lines))
    except OSError as error:
        raise ConfigError(f"{asked}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{asked}: each line is a time in seconds, or JSON with a timestamp in ms") from error
    require(bool(found), f"{asked}: there are no times in it")
    return [one - found[0] for one in found]


def _time_of(line: str) -> float:
    if line.lstrip().startswith("{"):
        return float(json.loads(line)["timestamp"]) / 1000
    return float(line)


def _renewals(gap: Callable[[], float]) -> Iterator[float]:
    return itertools.accumulate(gap() for _ in itertools.count())


def _bursts(rate: float, rng: random.Random, burst: int) -> Iterator[float]:
    base = (number * 2 / rate for number in itertools.count())
    starts = _renewals(lambda: rng.expovariate(rate / 2 / burst))
    together = (start for start in starts for _ in range(burst))
    a, b = next(base), next(together)
    while True:
        if a <= b:
            yield a
            a = next(base)
        else:
            yield b
            b = next(together)
