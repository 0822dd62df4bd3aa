"""The loads of a stored sweep from Python: `from sweep.report import LoadReport`. docs/report.md has an example."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sweep.analysis.table import table
from sweep.cached import cached_property
from sweep.report import drawing, load_text, stored
from sweep.results.folder import SweepFolder

if TYPE_CHECKING:
    import pandas

Kind = Literal["throughput", "latency", "all"]

PLOTS = {
    "throughput": drawing.THROUGHPUT,
    "latency": drawing.LATENCY,
    "all": tuple(dict.fromkeys((*drawing.THROUGHPUT, *drawing.LATENCY))),
}
"""Plots of each kind."""


@dataclass(frozen=True)
class LoadReport:
    """What a sweep measured under load. Reads the folder on first use.

    Every method raises sweep.config.ConfigError when the folder is not a sweep. Nothing is measured.
    """

    folder: str | Path

    @cached_property
    def _stored(self) -> stored.Stored:
        return stored.read(SweepFolder(Path(self.folder)))

    def table(self) -> "pandas.DataFrame":
        """A row of summary.csv for every cell under load, A/A runs too; without columns that none of them has.

        Columns that end with `_s` are seconds; `python -m sweep.report --columns` lists all.
        """
        import pandas

        _, rows = table([row for row in self._stored.summary.rows if row.get("load")])
        return pandas.DataFrame(rows).dropna(axis=1, how="all")

    def text(self) -> str:
        """A paragraph for every cell under load, and what they say together."""
        return load_text.text_of(self._stored)

    def plots(self, kind: Kind = "all") -> list[Path]:
        """Draw the plots of loads into the sweep's folder `plots`; returns the files, PNG and SVG of each.

        Raises KeyError for another kind, OSError when they cannot be written.
        """
        return drawing.draw(self._stored, PLOTS[kind])

    def bench(self) -> list[Path]:
        """Write bench.json into the folder of every cell under load. Raises OSError."""
        return drawing.write_bench(self._stored)

    def dashboard(self) -> Path:
        """Write dashboard.html. Raises ConfigError when there is no load or plotly is not installed, and OSError."""
        from sweep.report import dashboard

        return dashboard.write(self._stored)
