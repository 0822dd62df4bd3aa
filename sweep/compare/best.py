"""`--best`: cells of all reports ranked by speed-up, one list for each model, engine, batch, size and load.

Pure: loaded reports in, rankings out. Only valid cells that are PASS or WARN are ranked, and of those only the ones
whose images meet the wanted quality.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sweep.analysis.paired import FASTER
from sweep.compare.load import Cell, Report
from sweep.findings import USABLE


@dataclass(frozen=True, order=True)
class Context:
    """Cells of one context have comparable speed-ups and images per second."""

    model: str
    engine: str
    batch: int
    width: int
    height: int
    steps: int
    load: str = ""  # how requests arrive; "" offline

    def __str__(self) -> str:
        load = f", {self.load}" if self.load else ""
        return f"{self.model}, {self.engine}, batch {self.batch}, {self.width}x{self.height}, {self.steps} steps{load}"


@dataclass(frozen=True)
class Wanted:
    """The minimum quality of ranked cells, against their baseline's images; None: any."""

    min_psnr_db: float | None = None  # PSNR over all images, dB
    min_ssim: float | None = None  # mean SSIM

    def __str__(self) -> str:
        psnr, ssim = self.min_psnr_db, self.min_ssim
        asked = [f"{psnr:g} dB PSNR"] if psnr is not None else []
        return " or ".join([*asked, *([f"{ssim:g} SSIM"] if ssim is not None else [])])

    def met_by(self, cell: Cell) -> bool:
        """Whether its images are good enough; not if that is unknown. Identical images are as good as any."""
        if cell.quality["mean_diff"] == 0:
            return True
        pairs = ((self.min_psnr_db, cell.quality["psnr_db"]), (self.min_ssim, cell.quality["ssim"]))
        return all(least is None or (value is not None and value >= least) for least, value in pairs)


ANY = Wanted()


@dataclass(frozen=True)
class Ranked:
    """A cell in its context; `speedup` is over the baseline of its own sweep."""

    report: str
    cell: Cell
    speedup: float

    @property
    def certain(self) -> bool:
        """Whether its verdict is "faster"."""
        return bool(self.cell.speedup["called"] == FASTER)


@dataclass(frozen=True)
class Ranking:
    """The cells of one context, the best first, and how many could not be ranked.

    Cells with the verdict "faster" come first: a large speed-up that may be noise is no recommendation.
    """

    context: Context
    ranked: tuple[Ranked, ...]
    left_out: int  # FAIL, ERROR, NOT RUN, SKIP, not valid, or without a speed-up
    too_poor: int = 0  # would be ranked if less quality were wanted


def rank(reports: Sequence[Report], wanted: Wanted = ANY) -> list[Ranking]:
    """Every context that has a cell with features, sorted by name."""
    contexts: dict[Context, list[Ranked | None]] = {}
    for report in reports:
        for cell in report.cells.values():
            if not cell.is_baseline and not cell.is_repeat:
                load = cell.load.words if cell.load else ""
                where = Context(cell.model, cell.engine, cell.batch, cell.width, cell.height, cell.steps, load)
                contexts.setdefault(where, []).append(_ranked(report, cell))
    rankings = []
    for context, found in sorted(contexts.items(), key=lambda item: item[0]):
        kept = [one for one in found if one is not None]
        good = [one for one in kept if wanted.met_by(one.cell)]
        best_first = sorted(good, key=lambda one: (not one.certain, -one.speedup, one.cell.label, one.report))
        rankings.append(Ranking(context, tuple(best_first), len(found) - len(kept), len(kept) - len(good)))
    return rankings


def _ranked(report: Report, cell: Cell) -> Ranked | None:
    ratio = cell.speedup["ratio"]
    if cell.status not in USABLE or not cell.valid or ratio is None:
        return None
    return Ranked(report.name, cell, ratio)
