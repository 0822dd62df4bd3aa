"""Which cells are compared with each other: those that have the same baseline.

Rows of summary.csv name everything that a baseline depends on: columns of their own, and an option for each further
field that the sweep varies. A feature's own options are not part of it.
"""

from collections.abc import Mapping

from sweep.analysis import options
from sweep.plan.axes import short_name
from sweep.report.words import Row, number, text

Context = tuple[str, ...]

COLUMNS = ("model", "engine", "parallel", "batch", "width", "height", "steps", "profiled")


def context_of(row: Row) -> Context:
    """What cells share whose speed-ups can be compared, their load included."""
    return (*columns_of(row), text(row, "load"), *said(settings_of(row, loads=True)))


def context_of_any_load(row: Row) -> Context:
    """The same, whatever their load."""
    return (*columns_of(row), *said(settings_of(row)))


def columns_of(row: Row) -> Context:
    """The part of a context that is in COLUMNS; numbers without trailing zeros."""
    numbers = ((name, number(row, name)) for name in COLUMNS)
    return tuple(text(row, name) if value is None else f"{value:.15g}" for name, value in numbers)


def settings_of(row: Row, loads: bool = False) -> dict[str, str]:
    """The part of a context that has no column: fields as the command line names them. `loads`: also those of loads."""
    features = set(filter(None, text(row, "features").split("+")))
    found = {}
    for name, value in options.without_prefix(row).items():
        group = name.partition(".")[0]
        if text({name: value}, name) and group not in features and (loads or group != "load"):
            found[name] = f"{value:.15g}" if isinstance(value, float) else str(value)
    return dict(sorted(found.items()))


def said(settings: Mapping[str, str]) -> tuple[str, ...]:
    """`input_width=512`, one text a field, named as labels name it."""
    return tuple(f"{short_name(name)}={value}" for name, value in settings.items())
