"""What plan.json must hold to be read back: types, bounds, and names that do not lead outside the folder.

The configuration of a cell is checked as far as reports read it; the rest is left to the engine that runs it. Knows no
files.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

Key = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
KeyOrNone = Annotated[str, Meta(pattern="^([0-9a-f]{16})?$")]
Count = Annotated[int, Meta(ge=0, le=2**31)]
Price = Annotated[float, Meta(ge=0, le=1e12)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class _Model(Struct, frozen=True):
    name: str
    embedded: bool
    path: str | None = None
    weights: str = ""


class _Engine(Struct, frozen=True):
    name: str
    warmup: Count
    dtype: str = "auto"


class _Parallel(Struct, frozen=True):
    name: str
    gpus: Count | None = None


class _Workload(Struct, frozen=True):
    steps: Count
    width: Count
    height: Count


class _Hardware(Struct, frozen=True):
    price_per_gpu_hour: Price | None = None


class _Config(Struct, frozen=True):
    model: _Model
    engine: _Engine
    parallel: _Parallel
    workload: _Workload
    hardware: _Hardware
    feature: dict[str, dict[str, Any]]
    batch: Count
    seed: Annotated[int, Meta(ge=0)]
    repeat: Count | Literal["auto"] = 1
    precision: Fraction = 0.05
    max_repeat: Count = 4
    profile: str = "off"
    clip: str | None = None
    ocr: bool = False
    plots: bool = True


class _Skip(Struct, frozen=True):
    code: str
    text: str
    status: str = ""
    short: str = ""


class _Cell(Struct, frozen=True):
    key: Key
    engine_key: KeyOrNone
    baseline_key: KeyOrNone
    label: str
    role: Literal["baseline", "feature", "aa", "repeat"]
    features: tuple[str, ...]
    gpus: Count
    config: _Config
    skip: _Skip | str | None = None  # a text in plans of sweep 0.1.0
    overrides: tuple[str, ...] = ()
    suffix: str = ""
    device: Literal["cpu", "cuda"] = "cpu"
    repeat: Count = 0
    origin: KeyOrNone = ""
    interleaved: KeyOrNone = ""
    base_key: KeyOrNone = ""
    beside: KeyOrNone = ""  # `interleaved` in plans of sweep 0.1.0


class _Group(Struct, frozen=True):
    number: Count
    engine_key: KeyOrNone
    gpus: Count
    cells: tuple[Key, ...]


class _Plan(Struct, frozen=True):
    cells: tuple[_Cell, ...]
    groups: tuple[_Group, ...] = ()


def check_plan(values: Any) -> None:
    """Check a plan.json's values. Raises ValueError with one line that names the field."""
    plan = msgspec.convert(values, _Plan)  # msgspec's errors are ValueErrors that end with the field's path
    keys: set[str] = set()
    for number, cell in enumerate(plan.cells):
        if cell.key in keys:
            raise ValueError(f"cells[{number}].key {cell.key} appears twice")
        if set(cell.features) != cell.config.feature.keys():
            raise ValueError(f"cells[{number}].features are not those of its configuration")
        keys.add(cell.key)
    for number, group in enumerate(plan.groups):
        if group.number != number:
            raise ValueError(f"groups[{number}].number is {group.number}")
        if not keys.issuperset(group.cells):
            raise ValueError(f"groups[{number}].cells has a key that no cell has")
