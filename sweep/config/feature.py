"""Group `feature`: a switch, and the gates that its images are judged by."""

from dataclasses import dataclass, field
from typing import Any

from sweep.refusals import require


@dataclass
class Gate:
    """Quality thresholds of a feature against its baseline, one for each measure; None: not used."""

    warn_mean_diff: float | None = None  # mean absolute pixel difference, in [0, 1]
    fail_mean_diff: float | None = None
    warn_max_diff: float | None = None  # largest absolute pixel difference, in [0, 1]
    fail_max_diff: float | None = None
    warn_psnr_db: float | None = None  # lowest PSNR over all images, dB
    fail_psnr_db: float | None = None
    warn_ssim: float | None = None  # lowest mean SSIM, at most 1
    fail_ssim: float | None = None
    fail_broken: float = 0.05  # share of pictures that may stop matching their prompts, where that can be checked

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is None:
                continue
            if name.endswith("_ssim"):
                require(value <= 1, f"{name}={value}: must be at most 1, which is identical")
            else:
                require(value >= 0, f"{name}={value}: must be at least 0")


LOSSY_GATE = {"warn_mean_diff": 0.1, "fail_mean_diff": 0.25}
LOSSLESS_GATE = {"fail_mean_diff": 0.005, "fail_max_diff": 0.05}
"""Gates that a feature's file may leave out. Reduction order moves ulysses, ring and tp by about 0.0023 in bf16."""

WARN_PSNR_DB = 30.0
"""Likewise, for lossy features; sweeps that were stored before this gate are judged without it. docs/verdicts.md says
where it comes from."""


@dataclass
class Feature:
    """One acceleration switch. Keys of its file beyond these fields are its own parameters (`options`)."""

    name: str = ""
    label: str = ""  # for plots and tables
    summary: str = ""  # one line for people
    lossy: bool = False
    gpus: int = 1  # factor by which it multiplies the devices needed
    shares_ranks: bool = False  # it uses the devices of the other features; `gpus` is what it needs alone
    splits_heads: list[str] = field(default_factory=list)  # engines where its `gpus` must divide the attention heads
    conflicts: list[str] = field(default_factory=list)
    requires: list[str] = field(default_factory=list)  # has no effect without one of these features
    engines: dict[str, Any] = field(default_factory=dict)  # engine -> arguments that enable it there
    families: dict[str, list[str]] = field(default_factory=dict)  # engine -> model families; absent: every family
    unsupported: Any = ""  # why other families are skipped: text, engine -> text, or engine -> family -> text
    evidence: str = ""  # rule of sweep/analysis/evidence.py that shows it engaged; or engine -> rule
    limits: dict[str, list[Any]] = field(default_factory=dict)  # option -> [lowest, highest]
    predict: Any = None  # how it changes the work, as sweep/predict/effects.py reads it; None: unknown
    gate: Gate = field(default_factory=Gate)
    options: dict[str, Any] = field(default_factory=dict)
