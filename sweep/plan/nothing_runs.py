"""What is said about a plan in which nothing can run. Pure."""

from sweep.findings import Finding
from sweep.plan.building import CONFLICT
from sweep.plan.cells import FEATURE, Cell
from sweep.plan.plans import Plan
from sweep.refusals import ConfigError


def refuse_if_nothing_runs(plan: Plan) -> None:
    """Refuse a sweep whose cells are all skipped, unless that is allowed or only shown. Raises ConfigError.

    Features that exclude each other are refused in any case.
    """
    asked = [cell for cell in plan.cells if cell.role == FEATURE]
    skips = [cell.skip for cell in asked if cell.skip and cell.skip.code == CONFLICT]
    if asked and len(skips) == len(asked):
        raise ConfigError(f"feature={list(asked[0].features)}: {skips[0].text}; choose one of them")
    fine = ("allow_empty", "dry_run")
    if (why := why_nothing_runs(plan)) and not any(plan.cells[0].config.get(name) for name in fine):
        raise ConfigError(f"{why}; with allow_empty=true this is no error")


def why_nothing_runs(plan: Plan) -> str:
    """Why every cell is skipped, and which engine runs it; "" when a cell runs."""
    skipped = [(cell, cell.skip) for cell in plan.cells if cell.skip]
    if not skipped or len(skipped) < len(plan.cells):
        return ""
    reasons = list(dict.fromkeys(_told(cell, skip) for cell, skip in skipped))
    if len(reasons) == 1:
        return f"nothing can run: {reasons[0]}"
    return f"nothing can run: all {len(skipped)} cells are skipped, {skipped[0][0].label} because {reasons[0]}"


def _told(cell: Cell, skip: Finding) -> str:
    if skip.code != "feature_not_in_engine":
        return skip.text
    lacking = [feature for feature in cell.chosen if cell.config["engine"]["name"] not in feature.engines]
    having = sorted(set.intersection(*({*feature.engines} for feature in lacking))) if lacking else []
    return f"{skip.text}; {' and '.join(f'engine={name}' for name in having)} has it" if having else skip.text
