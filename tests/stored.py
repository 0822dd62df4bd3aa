"""Stored sweeps of any size, written by the project's own writer from made-up measurements."""

import copy
import dataclasses
import functools
import hashlib
import itertools
import random
from pathlib import Path

from hydra import compose, initialize_config_dir
from msgspec import structs

from profiling.atomic_write import write_atomic
from profiling.evidence import RankEvidence
from sweep.config.run import CONF, register
from sweep.plan.cells import BASELINE, FEATURE, Cell, again
from sweep.plan.plans import Plan, build_plan
from sweep.plan.preflight import cell_from
from sweep.results.folder import SweepFolder
from sweep.results.records import DONE, TOKEN_TIMES, BatchRow, RequestRow, RunResult

SPEEDS = {"": 1.0, "teacache": 1.6, "cache_dit": 1.4, "vae_slicing": 1.0}
OF_OTHERS = 1.8
"""Speed-up of features that are not named there."""


def key_of(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def template(*features: str) -> Cell:
    """A cell as the command line composes it."""
    return copy.deepcopy(_composed(features))


@functools.cache
def _composed(features: tuple[str, ...]) -> Cell:
    register()
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return cell_from(compose("config", [f"feature=[{','.join(features)}]", "workload.num_prompts=4"]))


def many_cells(count: int) -> Plan:
    """At least `count` cells: three features and their baseline at many numbers of steps, and one A/A."""
    shapes = {name: template(*([name] if name else [])) for name in SPEEDS}
    cells: list[Cell] = []
    for steps in itertools.count(1):
        if len(cells) >= count:
            break
        baseline_key = key_of("", steps)
        for name, shape in shapes.items():
            work = {**shape.config["workload"], "steps": steps}
            key = key_of(name, steps)
            cells.append(
                dataclasses.replace(
                    shape,
                    key=key,
                    origin=key,
                    engine_key=key_of(name),
                    baseline_key=baseline_key,
                    label=f"{name or 'baseline'} b1 steps={steps}",
                    role=FEATURE if name else BASELINE,
                    config={**shape.config, "workload": work},
                    interleaved=baseline_key if name else "",
                )
            )
    repeated = dataclasses.replace(again(cells[0], 1), interleaved=cells[0].key)
    return build_plan([*cells, repeated])


def result_of(
    cell: Cell, noise: random.Random, prompts: int = 4, repeats: int = 3, slower: float = 1.0, dit_parameters: int = 9
) -> RunResult:
    """Measurements of one cell, 2 % of noise."""
    name = cell.features[0] if cell.features else ""
    steps = cell.config["workload"]["steps"]
    requests, batches = [], []
    for number, (repeat, prompt) in enumerate(itertools.product(range(repeats), range(prompts))):
        base_s = 0.3 + 0.05 * steps * slower
        seconds = base_s / SPEEDS.get(name, OF_OTHERS) * noise.gauss(1, 0.02)
        requests.append(
            RequestRow(
                *(
                    f"p{prompt}.{repeat}",
                    prompt,
                    prompt,
                    64,
                    64,
                    steps,
                    number * seconds,
                    0.0,
                    0.02,
                    seconds,
                    261,
                    0,
                    "",
                ),
                **{"repeat": repeat, "batch_index": number, "prompt_tokens": 12, "image_hash": key_of(name, prompt)},
                tpot_s=0.001,
            )
        )
        phases = {"request": seconds * 1000, "ar_decode": 300.0, "denoise_step": 50.0 * steps, "vae_decode": 5.0}
        evidence = RankEvidence(
            0, 2 * steps, steps, 4 * steps, 4 * steps if name in ("teacache", "cache_dit") else 0, 16, dit_parameters
        )
        evidence = structs.replace(evidence, settings={"vae_slicing": "on"})
        beside = base_s * noise.gauss(1, 0.02) if cell.interleaved else None
        counts = dict.fromkeys(phases, 1)
        batches.append(BatchRow(number, repeat, seconds, phases, counts, (evidence,), baseline_s=beside))
    telemetry = {"peak_memory_gb": 0.6, "cpu_pct": 101.0, "gpu_util_pct": None, "energy_j": None}
    return RunResult(
        cell.key, cell.label, DONE, load_s=5.0, requests=tuple(requests), batches=tuple(batches), telemetry=telemetry,
        prompts=tuple(f"prompt {n}" for n in range(prompts)), token_times=TOKEN_TIMES,
    )  # fmt: skip


def store(
    folder: Path, made: Plan, seed: int = 0, slower: float = 1.0, tables: bool = True, **more: int
) -> SweepFolder:
    """Write a sweep's folder: plan, manifest and one result a cell; `tables` False leaves out the CSV files."""
    sweep = SweepFolder(folder)
    sweep.prepare()
    sweep.save_plan(made)
    sweep.save_manifest({"command": "python -m sweep -m …", "start": "2026-11-21T08:00:00+00:00", "versions": {}})
    noise = random.Random(seed)
    for cell in made.cells:
        result = result_of(cell, noise, slower=slower, **more)
        if tables:
            sweep.save_result(cell, result)
        else:
            write_atomic(sweep.cell_path(cell) / "result.json", result.to_bytes())
    return sweep
