"""`from sweep.frames import load`: see report/dataframes.py."""

from sweep.report.dataframes import SweepTables, load

__all__ = ["SweepTables", "load"]
