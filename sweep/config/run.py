"""A run: one cell, fully resolved, made of all groups; the root of the schema."""

import dataclasses
import functools
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweep.config.engine import EngineConfig, Parallel
from sweep.config.hardware import Hardware
from sweep.config.load import Load
from sweep.config.model import Model
from sweep.config.values import at_home, seconds_of
from sweep.config.workload import Workload
from sweep.refusals import require

_PACKAGE = Path(__file__).resolve().parent.parent
INSTALLED = (_PACKAGE / "conf").is_dir()
"""Whether this is an installed package and not a checkout."""

CONF = (_PACKAGE if INSTALLED else _PACKAGE.parent) / "conf"
"""The configuration files: inside the package when installed, next to it in a checkout."""

ADD_ONS = ("base", "add")
"""Words of a sweep that are not fields: it measures what each feature set of `add` adds to the one of `base`."""

PROFILES = ("off", "nsys", "torch")
MOST_STARTS = 1000
"""Largest number of engine starts of one cell; each is a cell of the plan."""

LARGEST_SEED = 2**63 - 2**32
"""Seeds are counted up from the first one and must fit into 64 bits with a sign."""


@dataclass
class RunConfig:
    """One cell, fully resolved. These are the fields that the command line overrides."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    model: Model = field(default_factory=Model)
    feature: dict[str, Any] = field(default_factory=dict)  # name -> keys of conf/feature/NAME.yaml
    parallel: Parallel = field(default_factory=Parallel)
    workload: Workload = field(default_factory=Workload)
    load: Load = field(default_factory=Load)
    hardware: Hardware = field(default_factory=Hardware)
    batch: int = 1  # prompts generated at once
    seed: int = 0  # first seed; prompt i of seed s uses seed + s
    baselines: bool = True  # multirun: add the baseline of every cell
    aa: int = 2  # multirun: A/A runs of a baseline, each in a fresh engine, to estimate start-to-start noise
    interleave: str = "auto"  # multirun: interleave the baseline with each cell, batch by batch; auto: on a CPU
    repeat: int | str = 1  # multirun: engine starts per cell; auto: until `precision` is reached
    precision: float = 0.05  # target half-width of a speed-up's 95 % interval, relative (0.05 is ±5 %)
    max_repeat: int = 4  # most engine starts per cell with repeat=auto
    budget: str | None = None  # 90s, 20min, 2h: run the most telling cells first, and start nothing that would not fit
    skip_oom: bool = False  # SKIP cells that are predicted not to fit into the memory of the device
    clip: str | None = None  # folder of a CLIP checkpoint: adds each image's similarity to the baseline's image
    ocr: bool = False  # read the text in pictures whose prompts quote text; needs the extra `ocr`
    combine: int = 1  # multirun: 2 adds all pairs of the listed features, 3 also all triples, …
    profile: str = "off"  # nsys: record the measured requests; torch: the first batch. Speed is then not judged
    dry_run: bool | int | str = False  # print the plan and run nothing; json: as plan.json has it, for programs
    allow_empty: bool = False  # a sweep in which nothing can run is not an error: its cells are SKIP in the tables
    plots: bool = True  # draw plots and report.html when the sweep ends
    metadata: dict[str, Any] = field(default_factory=dict)  # anything that describes the run; stored with every result
    group: int | None = None  # internal: number of the group that a launched job runs

    def __post_init__(self) -> None:
        self.clip = at_home(self.clip)
        require(self.batch >= 1, f"batch={self.batch}: must be at least 1")
        require(0 <= self.seed <= LARGEST_SEED, f"seed={self.seed}: must be from 0 to {LARGEST_SEED}")
        require(self.combine >= 1, f"combine={self.combine}: must be at least 1 (2 adds all pairs)")
        require(0 <= self.aa <= MOST_STARTS, f"aa={self.aa}: must be from 0 (no A/A) to {MOST_STARTS}")
        self.interleave = self.interleave.lower()  # false on the command line arrives as "False"
        require(
            self.interleave in ("auto", "true", "false"), f"interleave={self.interleave}: choose auto, true or false"
        )
        self.profile = self.profile.lower()
        require(
            self.profile in PROFILES, f"profile={self.profile}: choose {', '.join(PROFILES[:-1])} or {PROFILES[-1]}"
        )
        number = str(self.repeat).isdecimal() and 1 <= int(self.repeat) <= MOST_STARTS
        require(
            number or self.repeat == "auto",
            f"repeat={self.repeat}: choose auto, or from 1 to {MOST_STARTS} engine starts",
        )
        require(0 < self.precision < 1, f"precision={self.precision}: must be between 0 and 1 (0.05 is ±5 %)")
        require(self.dry_run in (True, False, "json"), f"dry_run={self.dry_run}: choose true, false or json")
        require(1 <= self.max_repeat <= MOST_STARTS, f"max_repeat={self.max_repeat}: must be from 1 to {MOST_STARTS}")
        if self.budget is not None:
            seconds_of(self.budget, "budget")


@functools.cache
def field_names(kind: type = RunConfig, prefix: str = "") -> tuple[str, ...]:
    """Every field that an override can name, with its group: `batch`, `workload.steps`, `model.dit.heads`."""
    names: list[str] = []
    for name, annotation in typing.get_type_hints(kind).items():
        names.append(f"{prefix}{name}")
        alternatives = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
        for inner in alternatives:  # what lists and dictionaries hold has no names of its own
            if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                names += field_names(inner, f"{prefix}{name}.")
    return tuple(names)


def register() -> None:
    """Put the schema into Hydra's ConfigStore; conf/config.yaml builds on it.

    Hydra deep-copies the whole store for every configuration that it composes: 85 times for --help, most of its time.
    What the store hands out are copies anyway (`ConfigStore.load`), so a copy of the store is the store itself.
    """
    from hydra.core.config_store import ConfigStore  # not above: engines' processes read the schema without Hydra

    store = ConfigStore.instance()
    store.store(name="run_schema", node=RunConfig)
    ConfigStore.__deepcopy__ = lambda self, memo: self
