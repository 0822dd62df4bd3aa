"""Summary rows: everything that is reported about a cell, computed only from stored results.

Formulas come from `metrics` and `paired`, image differences from `image_pairs`, the status from `status`. Writes only
the cache of image differences.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweep.analysis import (
    add_ons,
    columns,
    combinations,
    control_group,
    engine_starts,
    family,
    image_faults,
    image_pairs,
    ladders,
    limits,
    load_checks,
    notes,
    options,
    picture_text,
    prompt_checks,
    queueing,
    stage_evidence,
    status,
    step_counts,
    trends,
    turn_differences,
    validity,
)
from sweep.analysis import evidence as evidence_rules
from sweep.analysis.cell_data import CellData
from sweep.analysis.control_group import ControlGroup
from sweep.analysis.engagement import Executed
from sweep.analysis.engine_starts import Floor, Measured
from sweep.analysis.image_metrics import ImageDifference
from sweep.analysis.image_pairs import IDENTICAL
from sweep.analysis.ladders import Ladder, Serving
from sweep.analysis.pixel_gates import Pixels
from sweep.analysis.queueing import Queueing
from sweep.analysis.stored_sweep import StoredSweep
from sweep.analysis.trends import Trend
from sweep.engines import registry
from sweep.findings import BUDGET, EXITS_WITH_1, NOT_RUN, SKIP, Finding, deciding, status_of, texts
from sweep.findings import ERROR as STATUS_ERROR
from sweep.plan.cells import AA, REPEAT, Cell, model_and_engine
from sweep.plan.plans import Plan
from sweep.predict.reached import Reached
from sweep.results.folder import SweepFolder
from sweep.results.records import CUT_OFF, ERROR, LEFT_OUT, RunResult

Row = dict[str, Any]


@dataclass(frozen=True)
class Summary:
    """One row per cell in the plan's order, and the noise that the rows were judged by.

    Keys of a row are the names of `columns.COLUMNS` and of `options`; its texts are built from its `findings`, `doubts`
    and `notes`.
    """

    rows: list[Row]
    floors: dict[tuple[str, str], Floor]  # by model and engine
    pixels: dict[tuple[str, str], Pixels]  # between two runs of the same baseline
    control: ControlGroup = field(default_factory=ControlGroup)  # other engines against the native pipeline
    ladders: list[Ladder] = field(default_factory=list)  # configurations under several loads
    serving: list[Serving] = field(default_factory=list)  # what serving them costs
    trends: list[Trend] = field(default_factory=list)  # long loads: leaks and degradation
    reached: dict[str, Reached] = field(default_factory=dict)  # by cell key: predictions and limits, where known
    queues: list[Queueing] = field(default_factory=list)  # loads by the queueing model


def summarise(folder: SweepFolder, plan: Plan, loaded: Mapping[str, tuple[RunResult | None, str]]) -> Summary:
    """Rows of all cells but repeats, whose samples join their origin's. `loaded`: `SweepFolder.load_results`."""
    results = {key: result for key, (result, _) in loaded.items()}
    measured = engine_starts.measured_cells(plan, results)
    baselines = engine_starts.baselines(measured)
    floors = engine_starts.floors(plan, measured)
    problems = {key: problem for key, (_, problem) in loaded.items() if problem}
    unfinished = any(result is None or result.cause == CUT_OFF for result in results.values())
    states = folder.last_states() if unfinished else {}
    sweep = StoredSweep(folder, plan.by_key, results, problems, states, measured, baselines, floors)
    pixels = _pixel_floors(sweep, plan)
    rows = [_row(sweep, cell, _quality(sweep, cell), pixels) for cell in plan.cells if cell.role != REPEAT]
    combinations.judge(rows, plan.by_key, sweep.starts, pixels)
    add_ons.fill(rows, plan.by_key, measured, floors)
    step_counts.compare(rows, measured)
    interleaved = {key for key, one in measured.items() if one.pairs}
    validity.doubt_drift(rows, interleaved)
    validity.doubt_baselines(rows, plan.by_key, interleaved)
    family.adjust(rows)
    reached = _reached(sweep, rows)
    limits.fill(rows, reached)
    soaks = trends.trends(plan.cells, results)
    roots = {one.root: one for one in soaks}
    queues = queueing.of(rows, plan.by_key, measured)
    queueing.fill(queues)
    chosen = options.of_cells(plan.cells)
    for row in rows:
        row |= chosen[row["cell_key"]]
        if row["cell_key"] in roots:
            row["findings"] += roots[row["cell_key"]].findings
        _conclude(row)
    group = control_group.compare(plan, rows, measured, floors, lambda *both: _control_images(folder, *both))
    loads = ladders.ladders(rows, plan.by_key), ladders.serving(rows, plan.by_key)
    return Summary(rows, floors, pixels, group, *loads, soaks, reached, queues)


Quality = Mapping[str, float] | str | None
"""Image differences; or why they are missing although they should exist; or None when there is nothing to compare."""


def _quality(sweep: StoredSweep, cell: Cell) -> Quality:
    mine = sweep.measured.get(cell.key)
    damaged = mine and sweep.folder.damaged_image(cell, mine.results[0], missing=False)
    if damaged:
        return f"images cannot be compared: {damaged}"
    if any(sweep.image_faults(key) for key in (cell.key, cell.baseline_key)):
        return None  # two blank images are identical
    if cell.baseline_key == cell.key:
        return IDENTICAL if mine and image_pairs.stored_images(mine.results[0]) else None
    baseline = sweep.measured.get(cell.baseline_key)
    if mine is None or baseline is None:
        return None
    try:
        return image_pairs.between(sweep.folder, cell, mine.results[0], baseline.cell, baseline.results[0])
    except (ValueError, OSError) as error:
        return f"images cannot be compared: {error}"


def _control_images(folder: SweepFolder, mine: Measured, theirs: Measured) -> ImageDifference | None:
    """Differences between the images of two engines; None when neither stored any. Raises as `image_pairs.between`."""
    for one in (mine, theirs):
        damaged = folder.damaged_image(one.cell, one.results[0], missing=False)
        engine = one.cell.config["engine"]["name"]
        if damaged:
            raise ValueError(f"{damaged} in the cell of {engine}")
        if wrong := image_faults.faults(one.results):
            raise ValueError(f"{engine}: {texts(wrong)}")
    found = image_pairs.between(folder, mine.cell, mine.results[0], theirs.cell, theirs.results[0], "the control")
    return ImageDifference(**{name: found[name] for name in IDENTICAL}) if found else None


def _pixel_floors(sweep: StoredSweep, plan: Plan) -> dict[tuple[str, str], Pixels]:
    """By model and engine, the largest difference between A/A cells and their baselines."""
    found: dict[tuple[str, str], Pixels] = {}
    for cell in plan.cells:
        known = _quality(sweep, cell) if cell.role == AA else None
        if isinstance(known, Mapping):
            name = model_and_engine(cell)
            found[name] = found.get(name, Pixels()).worst(Pixels.of(known))
    return found


def _row(sweep: StoredSweep, cell: Cell, quality: Quality, pixels: Mapping[tuple[str, str], Pixels]) -> Row:
    mine, result = sweep.measured.get(cell.key), sweep.results.get(cell.key)
    data = CellData(cell, mine.results if mine else (result,) if result else ())
    row: Row = columns.computed(data) | {"findings": [], "doubts": [], "notes": []}
    if cell.skip:
        row["findings"].append(cell.skip)
        return row
    if result is None:
        unreadable = sweep.problems.get(cell.key)
        absent = _absent(sweep.states.get(cell.key, {}))
        row["findings"].append(Finding("result_unreadable", unreadable, STATUS_ERROR) if unreadable else absent)
        return row
    if result.trace:
        row["trace"] = f"{cell.folder}/{result.trace}"
    stages, ran = cell.config["model"].get("stages"), sweep.executed(cell.key)
    parts = (evidence_rules.describe_evidence(ran.total), stage_evidence.describe(stages, ran) if ran.batches else "")
    row["evidence"] = "; ".join(filter(None, parts))
    if result.cause == CUT_OFF and sweep.states.get(cell.key, {}).get("state") == "error":
        row["findings"].append(_absent(sweep.states[cell.key]))  # its result could not be stored
        return row
    if result.state == ERROR or mine is None:
        row["findings"].append(Finding(result.cause or "error", result.reason or "nothing was measured", STATUS_ERROR))
        return row
    floor = sweep.floors.get(model_and_engine(cell), Floor())
    gain = engine_starts.speedup(mine, sweep.baselines.get(cell.baseline_key, []), floor)
    row |= {"speedup": gain.ratio, "speedup_low": gain.low, "speedup_high": gain.high}
    if cell.baseline_key != cell.key and gain.ratio is not None and row["latency_mean_s"] is not None:
        row["baseline_latency_s"] = row["latency_mean_s"] * gain.ratio
    row |= {"called": gain.called, "p_value": gain.p_value, "starts": len(mine.results), "valid": True}
    row["notes"] += [*notes.notes_of(sweep, mine, data, gain), *notes.said_by_trace(sweep, cell, result, row)]
    row["doubts"] += validity.own_doubts(cell, mine.results)
    if broken := load_checks.law(data, row["in_flight"], row["requests_per_s"]):
        row["doubts"].append(broken)
    row["notes"] += load_checks.notes(data)
    if isinstance(quality, str):
        row["findings"].append(Finding("images_not_comparable", quality, STATUS_ERROR))
        return row
    row |= quality or {}
    row["notes"] += _turn_notes(sweep, mine)
    checks, theirs = sweep.checks(cell.key), sweep.checks(cell.baseline_key)
    if checks:
        row |= prompt_checks.columns(checks)
        row["notes"] += prompt_checks.notes(cell.chosen, checks)
    elif outside := prompt_checks.untrained(cell):
        row["notes"].append(outside)
    texts_shown = sweep.texts(cell.key)
    row |= picture_text.columns(texts_shown)
    wrong = sweep.image_faults(cell.key)
    if cell.baseline_key != cell.key:
        wrong = [*wrong, *image_faults.no_comparison(sweep.image_faults(cell.baseline_key))]
    row["findings"] += status.judge(
        cell.chosen,
        sweep.starts(cell.key),
        sweep.executed(cell.baseline_key) if cell.baseline_key in sweep.measured else Executed(),
        Pixels.of(quality) if quality and cell.baseline_key != cell.key else None,
        gain.called,
        pixels.get(model_and_engine(cell), Pixels()),
        [
            *load_checks.judge(data),
            *step_counts.judge(mine.results),
            *(stage_evidence.judge(stages, sweep.starts(cell.key)) if _generates(cell) else ()),
            *wrong,
            *prompt_checks.judge(cell.chosen, checks, theirs),
            *picture_text.judge(cell.chosen, texts_shown, sweep.texts(cell.baseline_key)),
        ],
        notes.why_not_judged(sweep, cell, mine, gain),
        attached=_attached(cell),
        kept=bool(checks and checks.pictures and theirs and theirs.pictures),
    )
    return row


def _turn_notes(sweep: StoredSweep, mine: Measured) -> list[Finding]:
    """Notes on a cell with another one as baseline whose edits have several turns."""
    cell, baseline = mine.cell, sweep.measured.get(mine.cell.baseline_key)
    if baseline is None or cell.baseline_key == cell.key or not any(one.turn for one in mine.results[0].requests):
        return []
    known = sweep.folder.load_quality(cell)
    return turn_differences.note(turn_differences.by_turn(mine.results[0], baseline.results[0], known))


def _reached(sweep: StoredSweep, rows: Sequence[Row]) -> dict[str, Reached]:
    """How far each cell was from its prediction and from the limit, where that can be said."""
    known = limits.Limits(sweep.folder.load_manifest())
    found = {}
    for row in rows:
        key = row["cell_key"]
        if key in sweep.measured and (one := known.of(sweep.cells[key], row, sweep.executed(key))) is not None:
            found[key] = one
    return found


def _generates(cell: Cell) -> bool:
    kind = registry.find(cell.config["engine"]["name"])
    return kind is None or kind.generates


def _attached(cell: Cell) -> bool:
    kind = registry.find(cell.config["engine"]["name"])
    return kind is not None and kind.attaches


def _conclude(row: Row) -> None:
    """Fill in the status and the texts that follow from the findings, doubts and notes of a row."""
    grave = deciding(row["findings"])
    row |= {
        "status": status_of(row["findings"]),
        "reason": texts(grave),
        "reason_code": grave[0].code if grave else "",
        "invalid_reason": texts(row["doubts"]),
        "note": texts(row["notes"]),
    }
    if row["doubts"]:
        row["valid"] = False


def _absent(last: Mapping[str, Any]) -> Finding:
    """Why a planned cell has no result, from its last event."""
    if last.get("state") == "error":
        return Finding("not_stored", str(last.get("reason")), STATUS_ERROR)
    if last.get("state") in ("loading", "warm-up", "running", "analysing"):
        doing = str(last["state"]).replace("warm-up", "warming up")
        return Finding("cut_off", f"no result: the sweep ended while the cell was {doing}", STATUS_ERROR)
    if last.get("state") == LEFT_OUT:
        return Finding(BUDGET, str(last.get("reason")), NOT_RUN)
    return Finding("not_run", "the sweep ended before the cell began", NOT_RUN)


def exit_code(rows: Sequence[Mapping[str, Any]]) -> int:
    """1 when any cell is FAIL, ERROR or NOT RUN, else 0.

    Cells that a budget left out do not count, unless nothing was measured.
    """
    left_out = [row.get("reason_code") == BUDGET for row in rows]
    bad = any(row["status"] in EXITS_WITH_1 and not left for row, left in zip(rows, left_out, strict=True))
    measured = any(row["status"] not in (NOT_RUN, SKIP) for row in rows)
    return int(bad or (any(left_out) and not measured))
