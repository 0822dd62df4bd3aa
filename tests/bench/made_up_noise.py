"""Engine starts with noise of a known kind: a baseline, and the same baseline again as an interleaved cell. Seeded.

Each kind says how far the log latencies of single batches stray, and by how much a whole start does. Real noise is a
mixture; `calibration` checks for each kind alone whether the statistics keep their promise.
"""

from collections.abc import Callable

import numpy as np

from sweep.analysis.paired import Start

REPEATS = 3
Logs = tuple[np.ndarray, np.ndarray]
"""Log latencies of the baseline and of the cell, a value a batch, in the order in which they are generated."""


def _quiet(rng: np.random.Generator, count: int) -> Logs:
    """Batches repeat to 0.1 %, starts differ by 1 %: a dedicated GPU."""
    base, cell = rng.normal(0, 0.001, (2, count))
    return base, cell + rng.normal(0, 0.01)


def _even(rng: np.random.Generator, count: int) -> Logs:
    """Batches differ by 2 %, starts by 1 %."""
    base, cell = rng.normal(0, 0.02, (2, count))
    return base, cell + rng.normal(0, 0.01)


def _batches_only(rng: np.random.Generator, count: int) -> Logs:
    """Batches differ by 2 %, starts by nothing."""
    base, cell = rng.normal(0, 0.02, (2, count))
    return base, cell


def _heavy_tailed(rng: np.random.Generator, count: int) -> Logs:
    """Batches and starts as Student's t with 3 degrees of freedom: some batches take much longer."""
    base, cell = 0.02 * rng.standard_t(3, (2, count))
    return base, cell + 0.01 * rng.standard_t(3)


def _autocorrelated(rng: np.random.Generator, count: int) -> Logs:
    """Each engine has slow and fast spells of ten batches, which the other does not share."""
    found = np.zeros((2, count))
    level = rng.normal(0, 0.02 / np.sqrt(1 - 0.9**2), 2)
    for number in range(count):
        level = 0.9 * level + rng.normal(0, 0.02, 2)
        found[:, number] = level
    return found[0], found[1]


def _drifting(rng: np.random.Generator, count: int) -> Logs:
    """The machine's speed is a random walk of 2 % a batch, for both engines, which alternate in going first."""
    walk = np.cumsum(rng.normal(0, 0.02, 2 * count)) + rng.normal(0, 0.1)
    base, cell = rng.normal(0, 0.01, (2, count))
    batch = np.arange(count)
    second = batch % 2
    return base + walk[2 * batch + second], cell + walk[2 * batch + 1 - second] + rng.normal(0, 0.005)


KINDS: dict[str, Callable[[np.random.Generator, int], Logs]] = {
    "quiet batches": _quiet,
    "even": _even,
    "batches only": _batches_only,
    "heavy tails": _heavy_tailed,
    "autocorrelated": _autocorrelated,
    "drifting": _drifting,
}


def pair(kind: str, rng: np.random.Generator, prompts: int, uneven: float = 0.0) -> tuple[Start, Start]:
    """(baseline, cell) of one engine start: `prompts` prompts, generated REPEATS times.

    `uneven`: standard deviation, in logs, of what single prompts gain or lose in the cell.
    """
    keys = [(prompt, prompt, repeat) for repeat in range(REPEATS) for prompt in range(prompts)]
    base, cell = KINDS[kind](rng, len(keys))
    if uneven:
        cell = cell + np.tile(rng.normal(0, uneven, prompts), REPEATS)
    return dict(zip(keys, np.exp(base).tolist(), strict=True)), dict(zip(keys, np.exp(cell).tolist(), strict=True))
