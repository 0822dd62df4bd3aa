"""Which cells of two reports are compared: those of one configuration, or those that agree in named fields.

`by` names what cells must have in common, `ignore` settings in which they may differ. Then A/A runs stay out, because
they measure noise, and a cell that matches several is refused. Pure; knows no statistics.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sweep.compare.load import Cell, CompareError, Report
from sweep.refusals import nearest

FIELDS: dict[str, Callable[[Cell], object]] = {
    "model": lambda cell: cell.model,
    "engine": lambda cell: cell.engine,
    "size": lambda cell: f"{cell.width}x{cell.height}",
    "steps": lambda cell: cell.steps,
    "prompts": lambda cell: cell.prompts,
    "batch": lambda cell: cell.batch,
    "load": lambda cell: cell.load.words if cell.load else "offline",
    "parallel": lambda cell: cell.parallel,
    "features": lambda cell: "+".join(cell.features) or "none",
    "profile": lambda cell: cell.profiled or "off",
    "cell": lambda cell: cell.label,
}
"""What every report holds of a cell; `cell` is its name."""

ABSENT = "absent"
"""Shown for a setting that a cell does not have."""

UNSEEN = "what a report does not hold, such as the contents of a checkpoint"

Identity = tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    """How cells are matched. Without names: by their key, which covers everything that can change a result."""

    by: tuple[str, ...] = ()  # names of FIELDS, or settings
    ignore: tuple[str, ...] = ()  # settings, or groups of them such as engine.args

    @property
    def by_key(self) -> bool:
        """Whether only cells of one configuration match."""
        return not self.by and not self.ignore


@dataclass(frozen=True)
class Matches:
    """The cells that both reports have, and those of one alone."""

    pairs: tuple[tuple[Cell, Cell], ...]
    only_before: tuple[Cell, ...]
    only_after: tuple[Cell, ...]


def match(before: Report, after: Report, rule: Rule) -> Matches:
    """Match the cells of two reports. Raises CompareError for an unknown name, or where a cell matches several."""
    if not rule.by_key:
        _check(rule, (before, after))
    ours, theirs = (_identified(report, rule) for report in (before, after))
    return Matches(
        tuple((cell, theirs[name]) for name, cell in ours.items() if name in theirs),
        tuple(cell for name, cell in ours.items() if name not in theirs),
        tuple(cell for name, cell in theirs.items() if name not in ours),
    )


def differences(cell: Cell, other: Cell) -> dict[str, tuple[str, str]]:
    """What two matched cells differ in: setting by setting, else by what every report holds."""
    if cell.key == other.key:
        return {}
    if cell.settings and other.settings:
        names = dict.fromkeys((*cell.settings, *other.settings))
        pairs = {name: (_shown(cell.settings, name), _shown(other.settings, name)) for name in names}
        found = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        return found or {UNSEEN: ("", "")}
    held = {name: (str(value(cell)), str(value(other))) for name, value in FIELDS.items() if name != "cell"}
    return {name: pair for name, pair in held.items() if pair[0] != pair[1]}


def _check(rule: Rule, reports: Sequence[Report]) -> None:
    """Refuse names that no cell has. Raises CompareError."""
    settings = {name for report in reports for cell in report.cells.values() for name in cell.settings}
    for report in reports if rule.ignore else ():
        if report.cells and not any(cell.settings for cell in report.cells.values()):
            raise CompareError(
                f"--ignore: {report.name} was written by an earlier version and has no settings; rebuild it with "
                "`python -m sweep.report DIR`, or match with --by features,batch,model"
            )
    for name in rule.ignore:
        if not any(_within(one, name) for one in settings):
            hint = nearest(name, settings) or "; settings are named as on the command line of a sweep"
            raise CompareError(f"--ignore {name}: no cell has this setting{hint}")
    known = {**dict.fromkeys(FIELDS), **dict.fromkeys(sorted(settings))}
    for name in rule.by:
        if name not in known:
            hint = nearest(name, known) or f"; choose from {', '.join(FIELDS)}, or name a setting such as batch"
            raise CompareError(f"--by {name}: unknown{hint}")


def _within(setting: str, name: str) -> bool:
    return setting == name or setting.startswith(f"{name}.")


def _identified(report: Report, rule: Rule) -> dict[Identity, Cell]:
    """Cells by the fields that must agree. Raises CompareError where two agree in all of them."""
    if rule.by_key:
        return {(key,): cell for key, cell in report.cells.items()}
    found: dict[Identity, Cell] = {}
    for cell in report.cells.values():
        if cell.is_repeat:
            continue
        identity = _by(cell, rule.by) if rule.by else _but(cell, rule.ignore)
        if identity in found:
            first = found[identity]
            asked = f"--by {','.join(rule.by)}" if rule.by else " ".join(f"--ignore {one}" for one in rule.ignore)
            differ = [name for name in differences(first, cell) if name != UNSEEN]
            advice = f"; they differ in {_some(differ)}" if differ else ""
            advice += "; name more with --by, such as cell, its whole name" if rule.by else "; ignore less"
            raise CompareError(f"{asked}: {report.name} has two such cells, '{first.label}' and '{cell.label}'{advice}")
        found[identity] = cell
    return found


def _by(cell: Cell, names: Iterable[str]) -> Identity:
    return tuple(str(FIELDS[name](cell)) if name in FIELDS else _shown(cell.settings, name) for name in names)


def _but(cell: Cell, ignored: Sequence[str]) -> Identity:
    kept = (name for name in cell.settings if not any(_within(name, one) for one in ignored))
    return tuple(f"{name}={cell.settings[name]}" for name in sorted(kept))


def _shown(settings: Mapping[str, str], name: str) -> str:
    return settings.get(name, ABSENT)


def _some(names: Sequence[str]) -> str:
    shown = 3
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
