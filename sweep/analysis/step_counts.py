"""Whether the requested number of denoising steps took effect. Pure functions over stored values.

Two signs that it did not: the engine counted a different number of steps, or another number makes the same pictures.
The second also works where nothing is counted.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from profiling.evidence import RankEvidence
from sweep.analysis import image_pairs
from sweep.analysis.engine_starts import Measured
from sweep.findings import FAIL, Finding
from sweep.plan.cells import AA, Cell
from sweep.results.records import RunResult

OTHER_STEPS = "other_steps"
"""Code: the engine ran a different number of denoising steps from the requested one."""

NO_EFFECT = "steps_without_effect"
"""Code: fewer steps make pictures with the same pixels."""

ONE_LESS = 1
"""Some samplers leave out the last step, whose noise is 0."""

ORDER = 2
"""Second-order samplers call the DiT twice for each requested step."""


def judge(results: Sequence[RunResult]) -> list[Finding]:
    """FAIL where a batch did not run the number of steps of its requests; [] where it did or this is unknown."""
    for result in results:
        wanted = result.requests[0].steps if result.requests else 0  # requests of a cell all have the same number
        for batch in result.batches:
            busiest = max(batch.evidence, key=_counted, default=None)  # some ranks leave the scheduler to another
            if not (wanted and busiest and busiest.denoise_steps) or _as_asked(busiest, wanted):
                continue
            requests = sum(one.batch_index == batch.batch_index for one in result.requests)
            fewest, most = _of_a_request(busiest, requests)
            ran = most if most < wanted - ONE_LESS else fewest if fewest > ORDER * wanted else wanted
            if requests and ran != wanted:
                return [Finding(OTHER_STEPS, f"{ran:g} denoising steps ran, {wanted} were requested", FAIL)]
    return []


def _as_asked(one: RankEvidence, wanted: int) -> bool:
    """Whether a single call of the pipeline ran exactly these steps, as is usual."""
    return one.denoise_steps == wanted and "pipeline_calls" not in one.settings


def _counted(one: RankEvidence) -> int:
    return one.denoise_steps


def _of_a_request(one: RankEvidence, requests: int) -> tuple[float, float]:
    """The fewest and the most steps that a request of the batch can have had.

    Our engine calls its pipeline once for a batch. vLLM-Omni calls it once for each of several requests, or lets
    requests join a call that is under way.
    """
    calls = one.settings.get("pipeline_calls")
    if calls is None:
        return one.denoise_steps, one.denoise_steps
    if not calls.isdigit() or not int(calls):
        return 0.0, math.inf
    return one.denoise_steps / max(requests, int(calls)), one.denoise_steps / int(calls)


def compare(rows: Sequence[dict[str, Any]], measured: Mapping[str, Measured]) -> None:
    """Add a FAIL to the rows of cells whose pictures are those of a cell that differs only in having fewer steps."""
    alike: dict[tuple[object, ...], list[tuple[dict[str, Any], Cell]]] = {}
    for row in rows:
        one = measured.get(row["cell_key"])
        if one and one.cell.role != AA and (pictures := _pictures(one.results[0])):
            alike.setdefault(pictures, []).append((row, one.cell))
    for group in alike.values():
        if len({_steps(cell) for _, cell in group}) < 2:
            continue
        fewest: dict[str, int] = {}
        for row, cell in sorted(group, key=lambda both: _steps(both[1])):
            steps = fewest.setdefault(_without_steps(cell), _steps(cell))
            if steps < _steps(cell):
                fewer = "1 step makes" if steps == 1 else f"{steps} steps make"
                text = f"the number of steps has no effect: {fewer} the same pictures"
                row["findings"].insert(0, Finding(NO_EFFECT, text, FAIL))


def _steps(cell: Cell) -> int:
    steps: int = cell.config["workload"]["steps"]
    return steps


def _without_steps(cell: Cell) -> str:
    """Equal for cells that differ only in their number of steps."""
    workload = {name: value for name, value in cell.config["workload"].items() if name != "steps"}
    return json.dumps({**cell.config, "workload": workload}, sort_keys=True, default=str)


def _pictures(result: RunResult) -> tuple[object, ...]:
    """What the stored pictures are; () if one is not a picture, since two black ones are always the same."""
    if any(request.image_fault for request in result.requests):
        return ()
    return tuple(sorted((*key, digest) for key, (_, digest) in image_pairs.stored_images(result).items()))
