"""The best of many predictions under limits: `--best latency --under memory=80,gpus=4`. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sweep.predict.prediction import Prediction
from sweep.predict.row import Row
from sweep.refusals import nearest, require

GOALS: Mapping[str, tuple[str, Callable[[Row], float | None]]] = {
    "latency": ("lowest", lambda row: row.prediction.latency_s if row.prediction else None),
    "images_per_s": ("highest", lambda row: -row.prediction.images_per_s if row.prediction else None),
    "images_per_s_per_gpu": (
        "highest",
        lambda row: -row.prediction.images_per_s / row.prediction.point.gpus if row.prediction else None,
    ),
    "cost": ("lowest", lambda row: row.prediction.cost if row.prediction else None),
    "energy": ("lowest", lambda row: row.prediction.energy_j if row.prediction else None),
    "memory": ("lowest", lambda row: row.prediction.memory.told if row.prediction else None),
}
"""Name: the better end, and what is ranked; lower is better."""


@dataclass(frozen=True)
class Limit:
    """A condition that a configuration has to meet."""

    name: str
    value: float

    def meets(self, row: Row, psnr_db: Callable[[Row], float | None]) -> bool | None:
        """Whether it does; None where that is unknown."""
        found = row.prediction
        assert found is not None
        if self.name == "psnr":
            known = psnr_db(row)
            return None if known is None else known >= self.value
        value = _LIMITED[self.name](found)
        if value is None:
            return None
        return value >= self.value if self.name == "images_per_s" else value <= self.value


_LIMITED: Mapping[str, Callable[[Prediction], float | None]] = {
    "memory": lambda found: found.memory.told / 1e9,
    "latency": lambda found: found.latency_s,
    "gpus": lambda found: found.point.gpus,
    "cost": lambda found: found.cost,
    "energy": lambda found: found.energy_j,
    "images_per_s": lambda found: found.images_per_s,
}

UNITS = {
    "memory": "GB of the fullest GPU, at most",
    "latency": "seconds of a batch, at most",
    "gpus": "at most",
    "cost": "a picture, at most",
    "energy": "joules a picture, at most",
    "images_per_s": "at least",
    "psnr": "dB, at least",
}


def limits(text: str) -> tuple[Limit, ...]:
    """`memory=80,latency=5` as limits. Raises ConfigError."""
    found = []
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        require(
            name in UNITS, f"--under {part}: no such limit{nearest(name, UNITS) or '; there are ' + ', '.join(UNITS)}"
        )
        try:
            most = float(value)
        except ValueError:
            most = math.nan
        require(math.isfinite(most) and most > 0, f"--under {part}: must be a number above 0, {UNITS[name]}")
        found.append(Limit(name, most))
    return tuple(found)


@dataclass(frozen=True)
class Best:
    """What a search found."""

    rows: tuple[Row, ...]  # that meet every limit, best first
    tried: int
    skipped: int
    full: int  # do not fit into memory
    missed: Mapping[str, int]  # limit → how many miss it
    unknown: Mapping[str, int]  # limit → for how many it is unknown


def check_goal(goal: str) -> None:
    """Raises ConfigError for an unknown goal."""
    require(goal in GOALS, f"--best {goal}: no such goal{nearest(goal, GOALS) or '; there are ' + ', '.join(GOALS)}")


def best(rows: Sequence[Row], goal: str, under: Sequence[Limit], psnr_db: Callable[[Row], float | None]) -> Best:
    """Those that fit and meet the limits, best first; ties go to fewer GPUs. Raises ConfigError for an unknown goal."""
    check_goal(goal)
    rank = GOALS[goal][1]
    missed: dict[str, int] = {}
    unknown: dict[str, int] = {}
    kept: list[tuple[float, int, int, Row]] = []
    skipped = full = 0
    for place, row in enumerate(rows):
        if row.prediction is None:
            skipped += 1
            continue
        if row.prediction.fits is False:
            full += 1
            continue
        wrong = _first_missed(row, under, psnr_db, missed, unknown)
        value = rank(row)
        if not wrong and value is not None:
            kept.append((value, row.prediction.point.gpus, place, row))
    kept.sort(key=lambda one: one[:3])
    return Best(tuple(row for *_, row in kept), len(rows), skipped, full, missed, unknown)


def _first_missed(
    row: Row,
    under: Sequence[Limit],
    psnr_db: Callable[[Row], float | None],
    missed: dict[str, int],
    unknown: dict[str, int],
) -> bool:
    for limit in under:
        meets = limit.meets(row, psnr_db)
        if meets is None:
            unknown[limit.name] = unknown.get(limit.name, 0) + 1
            return True
        if not meets:
            missed[limit.name] = missed.get(limit.name, 0) + 1
            return True
    return False
