"""What people see: tables, plots, page and dashboard. `LoadReport` is its entry for Python."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweep.report.load_report import LoadReport

__all__ = ["LoadReport"]


def __getattr__(name: str) -> Any:
    """`LoadReport`, imported on first use: commands that import this package must start quickly."""
    if name == "LoadReport":
        from sweep.report.load_report import LoadReport

        return LoadReport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
