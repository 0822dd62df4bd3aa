"""Summary rows: everything that is said of a cell, computed from stored results alone.

Formulas come from `metrics` and `paired`, image differences from `differences`, status from `verdict`. Writes nothing
but the cache of image differences.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from profiling.evidence import RankEvidence
from sweep import columns, control, differences, members, paired, starts, status
from sweep import evidence as evidence_rules
from sweep import features as feature_rules
from sweep.columns import CellData
from sweep.control import ControlGroup
from sweep.differences import IDENTICAL
from sweep.engines import registry
from sweep.findings import ERROR as STATUS_ERROR
from sweep.findings import IMPRECISE, LOST, MORE_STARTS, Finding, deciding, status_of, texts
from sweep.plan import AA, FEATURE, REPEAT, Cell, Plan, model_and_engine
from sweep.quality import ImageDifference
from sweep.results import ERROR, RunResult, SweepFolder
from sweep.starts import Floor, Measured
from sweep.status import Pixels

Row = dict[str, Any]

DRIFT_LIMIT = 0.10
"""An A/A further than this from 1 makes speed-ups that were not measured beside the baseline invalid."""


@dataclass(frozen=True)
class Summary:
    """One row a cell in the plan's order, and the noise that they were judged by.

    Keys of a row are the names of `columns.COLUMNS`; `findings`, `doubts` and `notes` hold what its texts are made of.
    """

    rows: list[Row]
    floors: dict[tuple[str, str], Floor]  # by model and engine
    pixels: dict[tuple[str, str], Pixels]  # between two runs of the same baseline
    control: ControlGroup = field(default_factory=ControlGroup)  # other engines against the native pipeline


@dataclass(frozen=True)
class _Sweep:
    """What the rows are computed from."""

    folder: SweepFolder
    cells: Mapping[str, Cell]
    results: Mapping[str, RunResult | None]
    problems: Mapping[str, str]  # why a stored result cannot be read, by cell key
    states: Mapping[str, Mapping[str, Any]]  # last event of each cell, where any has no result
    measured: Mapping[str, Measured]
    baselines: Mapping[str, list[Measured]]  # a baseline and its A/A starts, by the baseline's key
    floors: Mapping[tuple[str, str], Floor]
    totals: dict[str, tuple[RankEvidence, ...]] = field(default_factory=dict)

    def evidence(self, key: str) -> tuple[RankEvidence, ...]:
        """What each rank executed in the start with this key; computed once, a baseline serves many cells."""
        if key not in self.totals:
            result = self.results[key]
            self.totals[key] = evidence_rules.total_evidence([b.evidence for b in result.batches]) if result else ()
        return self.totals[key]


def summarise(folder: SweepFolder, plan: Plan, loaded: Mapping[str, tuple[RunResult | None, str]]) -> Summary:
    """Rows of all cells but repeats, whose samples join their origin's. `loaded`: `SweepFolder.load_results`."""
    results = {key: result for key, (result, _) in loaded.items()}
    measured = starts.measured_cells(plan, results)
    baselines = starts.baselines(measured)
    floors = starts.floors(plan, measured)
    problems = {key: problem for key, (_, problem) in loaded.items() if problem}
    states = folder.last_states() if None in results.values() else {}
    sweep = _Sweep(folder, plan.by_key, results, problems, states, measured, baselines, floors)
    quality = {cell.key: _quality(sweep, cell) for cell in plan.cells if cell.role != REPEAT}
    pixels = _pixel_floors(plan, quality)
    rows = [_row(sweep, cell, quality[cell.key], pixels) for cell in plan.cells if cell.role != REPEAT]
    members.judge(rows, plan.by_key, sweep.evidence, pixels)
    beside = {key for key, one in measured.items() if one.pairs}
    _doubt_drift(rows, beside)
    _doubt_baselines(rows, plan.by_key, beside)
    for row in rows:
        _conclude(row)
    group = control.compare(plan, rows, measured, floors, lambda *both: _control_images(folder, *both))
    return Summary(rows, floors, pixels, group)


Quality = Mapping[str, float] | str | None
"""Image differences; why there are none although there should be; None when no image is stored."""


def _quality(sweep: _Sweep, cell: Cell) -> Quality:
    mine = sweep.measured.get(cell.key)
    damaged = mine and sweep.folder.damaged_image(cell, mine.results[0], missing=False)
    if damaged:
        return f"images cannot be compared: {damaged} is cut short"
    if cell.baseline_key == cell.key:
        return IDENTICAL if mine and differences.stored_images(mine.results[0]) else None
    baseline = sweep.measured.get(cell.baseline_key)
    if mine is None or baseline is None:
        return None
    try:
        return differences.between(sweep.folder, cell, mine.results[0], baseline.cell, baseline.results[0])
    except (ValueError, OSError) as error:
        return f"images cannot be compared: {error}"


def _control_images(folder: SweepFolder, mine: Measured, theirs: Measured) -> ImageDifference | None:
    """Differences between the images of two engines; None when neither stored any. Raises as `differences.between`."""
    for one in (mine, theirs):
        damaged = folder.damaged_image(one.cell, one.results[0], missing=False)
        if damaged:
            raise ValueError(f"{damaged} of {one.cell.config['engine']['name']} is cut short")
    found = differences.between(folder, mine.cell, mine.results[0], theirs.cell, theirs.results[0], "the control")
    return ImageDifference(**{name: found[name] for name in IDENTICAL}) if found else None


def _pixel_floors(plan: Plan, quality: Mapping[str, Quality]) -> dict[tuple[str, str], Pixels]:
    """By model and engine, the largest difference between A/A cells and their baselines."""
    found: dict[tuple[str, str], Pixels] = {}
    for cell in plan.cells:
        known = quality.get(cell.key)
        if cell.role == AA and isinstance(known, Mapping):
            before = found.get(model_and_engine(cell), Pixels())
            found[model_and_engine(cell)] = Pixels(
                max(before.mean_diff, known["mean_diff"]), max(before.max_diff, known["max_diff"])
            )
    return found


def _row(sweep: _Sweep, cell: Cell, quality: Quality, pixels: Mapping[tuple[str, str], Pixels]) -> Row:
    mine, result = sweep.measured.get(cell.key), sweep.results.get(cell.key)
    data = CellData(cell, mine.results if mine else (result,) if result else ())
    row: Row = {"findings": [], "doubts": [], "notes": [], **columns.computed(data)}
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
    row["evidence"] = evidence_rules.describe_evidence(sweep.evidence(cell.key))
    if result.state == ERROR or mine is None:
        row["findings"].append(Finding(result.cause or "error", result.reason or "nothing was measured", STATUS_ERROR))
        return row
    floor = sweep.floors.get(model_and_engine(cell), Floor())
    gain = starts.speedup(mine, sweep.baselines.get(cell.baseline_key, []), floor)
    row |= {"speedup": gain.ratio, "speedup_low": gain.low, "speedup_high": gain.high}
    row |= {"called": gain.called, "starts": len(mine.results), "valid": True}
    row["notes"] += [*_notes(sweep, cell, mine, gain), *_recorded(sweep, cell, result, row)]
    row["doubts"] += _doubts(cell, mine.results)
    if isinstance(quality, str):
        row["findings"].append(Finding("images_not_comparable", quality, STATUS_ERROR))
        return row
    row |= quality or {}
    row["findings"] += status.judge(
        feature_rules.parse_features(cell.config["feature"]),
        [sweep.evidence(one.key) for one in mine.results],
        sweep.evidence(cell.baseline_key) if cell.baseline_key in sweep.measured else (),
        Pixels(quality["mean_diff"], quality["max_diff"]) if quality and cell.baseline_key != cell.key else None,
        gain.called,
        pixels.get(model_and_engine(cell), Pixels()),
    )
    return row


def _conclude(row: Row) -> None:
    """Say what the findings, doubts and notes of a row come to."""
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


def _notes(sweep: _Sweep, cell: Cell, mine: Measured, gain: paired.Ratio) -> list[Finding]:
    """What a reader of the row should know although it changes no status."""
    notes = []
    if cell.role == FEATURE and cell.baseline_key not in sweep.measured:
        planned = "" if cell.baseline_key in sweep.cells else " (a sweep, -m, adds one)"
        notes.append(Finding("no_baseline", f"no baseline was measured: neither speed nor images are judged{planned}"))
    if cell.role == FEATURE and gain.ratio is not None:
        asked, width = cell.config["precision"], gain.half_width
        if gain.called == paired.UNKNOWN:
            notes.append(Finding("noise_unknown", "no A/A: what engine starts differ by is not known"))
        elif width is not None and width > asked:
            known = f"speed-up known to ±{width:.1%}, asked was ±{asked:.1%}"
            auto = cell.config["repeat"] == "auto"
            notes.append(
                Finding(IMPRECISE, known) if auto else Finding(MORE_STARTS, f"{known}, repeat=auto measures more")
            )
    hashes: dict[tuple[int, int], set[str]] = {}
    for request in (r for result in mine.results for r in result.requests):
        hashes.setdefault((request.prompt_index, request.seed), set()).add(request.image_hash)
    if any(len(found) > 1 for found in hashes.values()):
        notes.append(Finding("images_vary", "the same seed gave different images from run to run"))
    baseline = sweep.measured.get(cell.baseline_key)
    unlike = differences.other_tokens(mine.results[0], baseline.results[0]) if baseline else ()
    if unlike:
        images = len(differences.stored_images(mine.results[0]))
        wrote = f"the AR stage wrote other tokens for {len(unlike)} of {images} images than in the baseline"
        notes.append(Finding("other_tokens", f"{wrote}; those are not compared"))
    lost = dict.fromkeys(result.telemetry_problem for result in mine.results if result.telemetry_problem)
    unknown = "memory, utilisation and energy are not known"
    return notes + [Finding("no_telemetry", f"{unknown}: {problem}") for problem in lost]


def _recorded(sweep: _Sweep, cell: Cell, result: RunResult, row: Row) -> list[Finding]:
    """What a profile says of the cell's bottleneck, and what went wrong with it."""
    notes = [Finding("profile_failed", result.profile_note)] if result.profile_note else []
    if result.profile == "nsys" and result.trace:
        told = [one for one in sweep.folder.load_recorded_phases(cell) if one.get("phase") == row.get("bottleneck")]
        longest = max(
            told, key=lambda one: [_nanoseconds(one.get(f"{of}_ns")) for of in ("projected", "host")], default={}
        )
        if longest.get("verdict"):  # on a CPU the phase did nothing on a GPU, and the row says how long it took
            notes.append(Finding("profile_says", f"nsys: {longest.get('sentence', '')}"))
    return notes


def _nanoseconds(told: str | None) -> float:
    try:
        return float(told or 0)
    except ValueError:
        return 0.0


def _absent(last: Mapping[str, Any]) -> Finding:
    """Why a cell that was to run has no result, by the last that was heard of it."""
    if last.get("state") == "error":
        return Finding("not_stored", str(last.get("reason")), STATUS_ERROR)
    if last.get("state") in ("loading", "warm-up", "running", "analysing"):
        return Finding("cut_off", f"no result: the sweep ended while it was {last['state']}", STATUS_ERROR)
    return Finding("not_run", "not run: the sweep ended before it", STATUS_ERROR)


def _doubts(cell: Cell, results: Sequence[RunResult]) -> list[Finding]:
    """Why the numbers, of whichever start, cannot be trusted, apart from the status."""
    found = [
        Finding(code, said)
        for result in results
        for code, part in (("disturbed", result.foreign), ("throttled", result.throttled))
        for said in part
    ]
    kind = registry.find(cell.config["engine"]["name"])
    if cell.config["engine"]["warmup"] == 0 and (kind is None or kind.generates):
        found.append(Finding("no_warm_up", "measured without warm-up"))
    return list(dict.fromkeys(found))


def _doubt_drift(rows: Sequence[Row], beside: Set[str]) -> None:
    """Mark speed-ups invalid where A/A shows that the machine changed meanwhile; not those `beside` the baseline."""
    drift: dict[tuple[str, str], float] = {}
    for row in rows:
        if row["role"] == AA and row.get("speedup") is not None:
            name = row["model"], row["engine"]
            drift[name] = max(drift.get(name, 1.0), row["speedup"], 1 / row["speedup"])
    for row in rows:
        worst = drift.get((row["model"], row["engine"]), 1.0)
        exposed = row["role"] == FEATURE and row.get("speedup") is not None and row["cell_key"] not in beside
        if exposed and worst > 1 + DRIFT_LIMIT:
            said = f"A/A drift: the same baseline differed {worst:.2f}x between two engine starts"
            row["doubts"].append(Finding("drift", said))


def _doubt_baselines(rows: Sequence[Row], cells: Mapping[str, Cell], beside: Set[str]) -> None:
    """Mark speed-ups against a baseline that cannot be trusted itself; not those `beside` one."""
    doubts = {row["cell_key"]: tuple(row["doubts"]) for row in rows if row["doubts"]}
    for row in rows:
        key = row["cell_key"]
        baseline = cells[key].baseline_key
        found = doubts.get(baseline, ()) if baseline != key and key not in beside else ()
        if row.get("speedup") is not None and not set(found) <= set(row["doubts"]):
            row["doubts"].append(Finding("baseline_doubted", f"its baseline: {texts(found)}"))


def exit_code(rows: Sequence[Mapping[str, Any]]) -> int:
    """1 when any cell is FAIL or ERROR, else 0."""
    return int(any(row["status"] in LOST for row in rows))
