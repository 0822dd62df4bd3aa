"""Summary rows: everything that is said of a cell, computed from stored results alone.

Formulas come from `metrics` and `paired`, image differences from `differences`, status from `verdict`. Writes nothing
but the cache of image differences.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from sweep import control, differences, members, metrics, paired, starts, verdict
from sweep import features as feature_rules
from sweep.control import ControlGroup
from sweep.differences import IDENTICAL
from sweep.engines.base import RankEvidence
from sweep.plan import AA, FEATURE, REPEAT, Cell, Plan, model_and_engine
from sweep.quality import ImageDifference
from sweep.results import ERROR, RunResult, SweepFolder
from sweep.starts import Floor, Measured
from sweep.verdict import Pixels

Row = dict[str, Any]
_PHASES = (*metrics.EXCLUSIVE_PHASES, "dit_forward", "other")

COLUMNS: tuple[str, ...] = (
    *("cell", "model", "engine", "features", "parallel", "gpus", "batch", "steps", "width", "height", "prompts"),
    *("status", "reason", "valid", "invalid_reason", "profiled"),
    *(f"latency_{name}_s" for name in ("mean", "p50", "p90", "p95", "p99")),
    *("images_per_s", "images_per_s_per_gpu", "requests_per_s"),
    *(f"ttft_{name}_s" for name in ("mean", "p95", "p99")),
    *(f"tpot_{name}_s" for name in ("mean", "p95", "p99")),
    "output_tokens_per_s",
    *(f"{phase}_ms" for phase in ("request", *_PHASES)),
    *(f"{phase}_share" for phase in _PHASES),
    *("bottleneck", "peak_memory_gb", "gpu_util_pct", "energy_j_per_image", "cpu_pct", "load_s"),
    *("baseline_beside_s", "speedup", "speedup_low", "speedup_high", "called", "interaction_gain", "starts", "note"),
    *("mean_diff", "max_diff", "psnr_db", "ssim", "clip_similarity"),
    *("evidence", "predicted_latency_s", "cost_per_image", "trace", "role", "cell_key"),
)
"""Columns of summary.csv. Units are in the name; what is absent is empty, never 0."""


DRIFT_LIMIT = 0.10
"""An A/A further than this from 1 makes speed-ups that were not measured beside the baseline invalid."""


@dataclass(frozen=True)
class Summary:
    """One row a cell in the plan's order (keys are COLUMNS), and the noise that they were judged by."""

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
            self.totals[key] = verdict.total_evidence([b.evidence for b in result.batches]) if result else ()
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
    row = _identity(cell)
    if cell.skip:
        return row | {"status": verdict.SKIP, "reason": cell.skip}
    result = sweep.results.get(cell.key)
    if result is None:
        reason = sweep.problems.get(cell.key) or _why_absent(sweep.states.get(cell.key, {}))
        return row | {"status": verdict.ERROR, "reason": reason}
    mine = sweep.measured.get(cell.key)
    row |= _measured(mine.results if mine else (result,), cell)
    if result.trace:
        row["trace"] = f"{cell.folder}/{result.trace}"
    row["evidence"] = verdict.describe_evidence(sweep.evidence(cell.key))
    if result.state == ERROR or mine is None:
        return row | {"status": verdict.ERROR, "reason": result.reason or "nothing was measured"}
    gain = _speedup(sweep, cell, mine)
    row |= {"speedup": gain.ratio, "speedup_low": gain.low, "speedup_high": gain.high}
    notes = [_note(sweep, cell, mine, gain), *_recorded(sweep, cell, result, row)]
    row |= {"called": gain.called, "starts": len(mine.results), "note": "; ".join(filter(None, notes))}
    row |= _validity(cell, mine.results)
    if isinstance(quality, str):
        return row | {"status": verdict.ERROR, "reason": quality}
    row |= quality or {}
    judged = verdict.judge(
        feature_rules.parse_features(cell.config["feature"]),
        [sweep.evidence(one.key) for one in mine.results],
        sweep.evidence(cell.baseline_key) if cell.baseline_key in sweep.measured else (),
        Pixels(quality["mean_diff"], quality["max_diff"]) if quality and cell.baseline_key != cell.key else None,
        gain.called,
        pixels.get(model_and_engine(cell), Pixels()),
    )
    return row | {"status": judged.status, "reason": judged.reason}


def _identity(cell: Cell) -> Row:
    config = cell.config
    return {
        "cell": cell.label,
        "model": config["model"]["name"],
        "engine": config["engine"]["name"],
        "features": feature_rules.combination_name(cell.features),
        "parallel": config["parallel"]["name"],
        "gpus": cell.gpus,
        "batch": config["batch"],
        "steps": config["workload"]["steps"],
        "width": config["workload"]["width"],
        "height": config["workload"]["height"],
        "profiled": cell.profile or None,
        "role": cell.role,
        "cell_key": cell.key,
    }


def _speedup(sweep: _Sweep, cell: Cell, mine: Measured) -> paired.Ratio:
    """Against every start of the baseline; an A/A cell against the first one only. None of what was profiled."""
    if cell.profile:
        return paired.Ratio()
    if cell.baseline_key == cell.key:
        return paired.Ratio(1.0, 1.0, 1.0)
    known = sweep.baselines.get(cell.baseline_key, [])
    if cell.role == AA:
        known = [one for one in known if one.cell.key == cell.baseline_key]
    return starts.speedup(mine, known, sweep.floors.get(model_and_engine(cell), Floor()))


def _note(sweep: _Sweep, cell: Cell, mine: Measured, gain: paired.Ratio) -> str:
    """What a reader of the row should know although it changes no status."""
    notes = []
    if cell.role == FEATURE and cell.baseline_key not in sweep.measured:
        planned = "" if cell.baseline_key in sweep.cells else " (a sweep, -m, adds one)"
        notes.append(f"no baseline was measured: neither speed nor images are judged{planned}")
    if cell.role == FEATURE and gain.ratio is not None:
        asked, width = cell.config["precision"], gain.half_width
        if gain.called == paired.UNKNOWN:
            notes.append("no A/A: what engine starts differ by is not known")
        elif width is not None and width > asked:
            more = "" if cell.config["repeat"] == "auto" else ", repeat=auto measures more"
            notes.append(f"speed-up known to ±{width:.1%}, asked was ±{asked:.1%}{more}")
    hashes: dict[tuple[int, int], set[str]] = {}
    for request in (r for result in mine.results for r in result.requests):
        hashes.setdefault((request.prompt_index, request.seed), set()).add(request.image_hash)
    if any(len(found) > 1 for found in hashes.values()):
        notes.append("the same seed gave different images from run to run")
    baseline = sweep.measured.get(cell.baseline_key)
    unlike = differences.other_tokens(mine.results[0], baseline.results[0]) if baseline else ()
    if unlike:
        images = len(differences.stored_images(mine.results[0]))
        wrote = f"the AR stage wrote other tokens for {len(unlike)} of {images} images than in the baseline"
        notes.append(f"{wrote}; those are not compared")
    lost = dict.fromkeys(result.telemetry_problem for result in mine.results if result.telemetry_problem)
    notes += [f"memory, utilisation and energy are not known: {problem}" for problem in lost]
    return "; ".join(notes)


def _recorded(sweep: _Sweep, cell: Cell, result: RunResult, row: Row) -> list[str]:
    """What a profile says of the cell's bottleneck, and what went wrong with it."""
    notes = [result.profile_note]
    if result.profile == "nsys" and result.trace:
        told = [one for one in sweep.folder.load_recorded_phases(cell) if one.get("phase") == row.get("bottleneck")]
        longest = max(
            told, key=lambda one: [_nanoseconds(one.get(f"{of}_ns")) for of in ("projected", "host")], default={}
        )
        if longest.get("verdict"):  # on a CPU the phase did nothing on a GPU, and the row says how long it took
            notes.append(f"nsys: {longest.get('sentence', '')}")
    return notes


def _nanoseconds(told: str | None) -> float:
    try:
        return float(told or 0)
    except ValueError:
        return 0.0


def _why_absent(last: Mapping[str, Any]) -> str:
    """Why a cell that was to run has no result, by the last that was heard of it."""
    if last.get("state") == "error":
        return str(last.get("reason"))
    if last.get("state") in ("loading", "warm-up", "running", "analysing"):
        return f"no result: the sweep ended while it was {last['state']}"
    return "not run: the sweep ended before it"


def _validity(cell: Cell, results: Sequence[RunResult]) -> Row:
    """Whether the numbers, of whichever start, can be trusted, apart from the status."""
    doubts = list(dict.fromkeys(doubt for result in results for doubt in (*result.foreign, *result.throttled)))
    if cell.config["engine"]["warmup"] == 0 and cell.config["engine"]["name"] != "noop":
        doubts.append("measured without warm-up")
    return {"valid": not doubts, "invalid_reason": "; ".join(doubts)}


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
            _doubt(row, f"A/A drift: the same baseline differed {worst:.2f}x between two engine starts")


def _doubt_baselines(rows: Sequence[Row], cells: Mapping[str, Cell], beside: Set[str]) -> None:
    """Mark speed-ups against a baseline that cannot be trusted itself; not those `beside` one."""
    doubts = {row["cell_key"]: row["invalid_reason"] for row in rows if row.get("invalid_reason")}
    for row in rows:
        key = row["cell_key"]
        baseline = cells[key].baseline_key
        said = doubts.get(baseline, "") if baseline != key and key not in beside else ""
        if said and row.get("speedup") is not None and said not in doubts.get(key, ""):
            _doubt(row, f"its baseline: {said}")


def _doubt(row: Row, said: str) -> None:
    row["invalid_reason"] = "; ".join(filter(None, [row.get("invalid_reason", ""), said]))
    row["valid"] = False


def _measured(results: Sequence[RunResult], cell: Cell) -> Row:
    """Everything about one cell that needs no other cell, over all its starts."""
    result = results[0]
    requests = [r for one in results for r in one.requests]
    batches = [b for one in results for b in one.batches]
    if not batches:
        return {"load_s": result.load_s}
    latencies = [r.e2e_s for r in requests]
    ttfts = [r.ttft_s for r in requests if r.ttft_s is not None]
    tpots = [tpot_s for one in results for tpot_s in _tpots(one)]
    wall_s = sum(b.latency_s for b in batches)
    images = len(requests)
    tokens = sum(r.output_tokens for r in requests)
    totals = metrics.phase_totals(
        [(phase, ms) for b in batches for phase, ms in b.phase_ms.items()], requests=len(batches)
    )
    shares = metrics.phase_shares(totals)
    worst = metrics.bottleneck(totals)
    loads = [one.load_s for one in results if one.load_s is not None]
    price = cell.config["hardware"]["price_per_gpu_hour"]
    row: Row = {
        "prompts": len({r.prompt_index for r in requests}),
        "latency_mean_s": metrics.mean(latencies),
        "baseline_beside_s": metrics.mean([b.reference_s for b in batches if b.reference_s is not None]),
        "images_per_s": metrics.images_per_s(images, wall_s),
        "images_per_s_per_gpu": metrics.images_per_s_per_gpu(images, wall_s, cell.gpus),
        "requests_per_s": metrics.images_per_s(images, wall_s),
        "ttft_mean_s": metrics.mean(ttfts),
        "tpot_mean_s": metrics.mean(tpots),
        "output_tokens_per_s": tokens / wall_s if tokens else None,
        "bottleneck": worst.phase if worst else None,
        "peak_memory_gb": max(_seen(results, "peak_memory_gb"), default=None),
        "gpu_util_pct": metrics.mean(_seen(results, "gpu_util_pct")),
        "energy_j_per_image": metrics.energy_j_per_image(
            [(one.telemetry.get("energy_j"), len(one.requests)) for one in results]
        ),
        "cpu_pct": metrics.mean(_seen(results, "cpu_pct")),
        "load_s": metrics.mean(loads),
        "cost_per_image": cell.gpus * price / 3600 * wall_s / images if price is not None else None,
    }
    row |= {f"latency_p{q}_s": metrics.percentile(latencies, q) for q in (50, 90, 95, 99)}
    row |= {f"ttft_p{q}_s": metrics.percentile(ttfts, q) for q in (95, 99) if ttfts}
    row |= {f"tpot_p{q}_s": metrics.percentile(tpots, q) for q in (95, 99) if tpots}
    row |= {f"{phase}_ms": ms for phase, ms in totals.items()}
    row |= {f"{phase}_share": share for phase, share in shares.items()}
    return row


def _tpots(result: RunResult) -> list[float]:
    """TPOT of each request in seconds; of each batch in results stored before requests had their own."""
    own = [r.tpot_s for r in result.requests if r.tpot_s is not None]
    return own or [b.tpot_s for b in result.batches if b.tpot_s is not None]


def _seen(results: Sequence[RunResult], name: str) -> list[float]:
    """A figure of the telemetry in each start that has it."""
    return [value for one in results if (value := one.telemetry.get(name)) is not None]


def exit_code(rows: Sequence[Mapping[str, Any]]) -> int:
    """1 when any cell is FAIL or ERROR, else 0."""
    return int(any(row["status"] in (verdict.FAIL, verdict.ERROR) for row in rows))
