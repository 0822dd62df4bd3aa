"""Notes of a row: what a reader should know although it changes no status. Pure, except that it reads trace phases."""

from typing import Any

from sweep.analysis import image_pairs, paired
from sweep.analysis.cell_data import CellData
from sweep.analysis.engine_starts import Measured
from sweep.analysis.stored_sweep import StoredSweep
from sweep.findings import IMPRECISE, MORE_STARTS, Finding
from sweep.plan.cells import AA, FEATURE, Cell, model_and_engine
from sweep.results.records import TOKEN_TIMES, RunResult


def notes_of(sweep: StoredSweep, mine: Measured, data: CellData, gain: paired.Ratio) -> list[Finding]:
    """What a reader of the row should know although it changes no status. `data` is of the same cell as `mine`."""
    cell = mine.cell
    notes = []
    if cell.role == FEATURE and cell.baseline_key not in sweep.measured:
        planned = "" if cell.baseline_key in sweep.cells else " (a sweep, -m, adds one)"
        notes.append(
            Finding("no_baseline", f"no baseline was measured, so neither speed nor images are judged{planned}")
        )
    if cell.role == FEATURE and gain.ratio is not None:
        asked, width = cell.config["precision"], gain.half_width
        if why := why_not_judged(sweep, cell, mine, gain):
            so = "" if gain.too_few else ", so start-to-start noise is unknown"
            notes.append(Finding(why.code, f"{why.text}{so}"))
        elif width is not None and width > asked:
            known = f"speed-up known to ±{100 * width:.1f} % (target ±{100 * asked:.3g} %)"
            auto = cell.config["repeat"] == "auto"
            notes.append(
                Finding(IMPRECISE, known) if auto else Finding(MORE_STARTS, f"{known}; repeat=auto measures more")
            )
        if gain.called and gain.pairs < paired.FEWEST_TO_TELL_GAINS:
            few = f"{gain.pairs} pairs are too few to tell whether gains differ, so the interval allows for it"
            notes.append(Finding("few_pairs", few))
    if cell.role == AA and gain.low is not None and gain.high is not None and not gain.low <= 1 <= gain.high:
        said = "the baseline against itself leaves out 1: engine starts differ by more than one start shows"
        notes.append(Finding("aa_leaves_out_one", f"{said}; intervals of features allow for it"))
    made = {(r.prompt_index, r.seed, r.image_hash) for r in data.requests}
    if len({(prompt, seed) for prompt, seed, _ in made}) < len(made):
        notes.append(Finding("images_vary", "the same seed gave different images from run to run"))
    baseline = sweep.measured.get(cell.baseline_key)
    if baseline and (unlike := image_pairs.other_tokens(mine.results[0], baseline.results[0])):
        images = len(image_pairs.stored_images(mine.results[0]))
        wrote = f"for {len(unlike)} of {images} images the AR stage wrote different tokens than in the baseline"
        notes.append(Finding("other_tokens", f"{wrote}; those images are not compared"))
    notes += _token_times(data) + _cut_prompts(data)
    if cell.device == "cpu" and cell.config["hardware"]["price_per_gpu_hour"] is not None:
        notes.append(Finding("no_price", "no cost: hardware.price_per_gpu_hour is a GPU's, and this ran on CPU cores"))
    lost = dict.fromkeys(result.telemetry_problem for result in mine.results if result.telemetry_problem)
    unknown = "memory, utilisation and energy are unknown"
    return notes + [Finding("no_telemetry", f"{unknown}: {problem}") for problem in lost]


def why_not_judged(sweep: StoredSweep, cell: Cell, mine: Measured, gain: paired.Ratio) -> Finding | None:
    """Why a feature's speed-up has no verdict; None where it has one, or where there is no speed-up."""
    if cell.role != FEATURE or gain.ratio is None or gain.called != paired.UNKNOWN:
        return None
    if gain.too_few:
        needed = f"at least {paired.FEWEST_PAIRS} prompts or repeats are needed"
        return Finding("too_few_pairs", f"too few pairs ({gain.pairs}; {needed})")
    again = sweep.repeated_baselines.get(model_and_engine(cell), ())
    measured = [sweep.measured[one.key] for one in again if one.key in sweep.measured]
    if not again:
        return Finding("noise_unknown", "no A/A run")
    if not measured:
        return Finding("aa_not_finished", "no A/A run finished")
    if mine.pairs and not any(one.pairs for one in measured):
        return Finding("aa_not_interleaved", "the A/A run had no interleaved baseline")
    return Finding("aa_not_comparable", "the A/A run shares no measurement with its baseline")


def _cut_prompts(data: CellData) -> list[Finding]:
    """Prompts that a pipeline cut off, as its engine counted them."""
    counts = (batch.evidence[0].counts.get("prompts_cut", 0) for batch in data.batches if batch.evidence)
    if not (cut := sum(counts)):
        return []
    read = max(request.prompt_tokens for request in data.requests)
    of = f"of {cut} of {len(data.requests)} prompts the pipeline read only the first {read:,} tokens"
    return [Finding("prompt_too_long", of)]


def _token_times(data: CellData) -> list[Finding]:
    """Why TTFT and TPOT are missing, or cannot be compared with those of other rows."""
    if data.output_tokens and not data.ttfts_s and not data.tpots_s:
        return [Finding("no_token_times", "TTFT and TPOT are unknown: nothing says when each request's tokens came")]
    if data.ttfts_s and any(result.token_times != TOKEN_TIMES for result in data.timed):
        said = "TTFT and TPOT were measured by an earlier version, which defined them otherwise for each engine"
        return [Finding("older_token_times", f"{said}: do not compare them")]
    return []


def said_by_trace(sweep: StoredSweep, cell: Cell, result: RunResult, row: dict[str, Any]) -> list[Finding]:
    """What a profile says about the cell's bottleneck, and what went wrong with the profile."""
    notes = [Finding("profile_failed", result.profile_note)] if result.profile_note else []
    if result.profile == "nsys" and result.trace:
        phases = [one for one in sweep.folder.load_recorded_phases(cell) if one.get("phase") == row.get("bottleneck")]
        longest = max(
            phases, key=lambda one: [_nanoseconds(one.get(f"{of}_ns")) for of in ("projected", "host")], default={}
        )
        if longest.get("verdict"):  # absent on a CPU, where the row already says how long the phase took
            notes.append(Finding("profile_says", f"nsys: {longest.get('sentence', '')}"))
    return notes


def _nanoseconds(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0
