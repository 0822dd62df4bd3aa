"""What one setting of an engine costs: `python -m tests.bench.engines SETTING… --a SETTING… --b SETTING…`.

Two engines that differ in the settings after --a and --b are loaded on the same devices and generate the same requests
in turns (A B, B A, …), so that a drifting machine meets both. Prints the median ratio of their latencies with its 95 %
interval (bootstrap over the pairs) and what each start took. For example what the plugin costs:

    python -m tests.bench.engines engine=vllm_omni model=qwen_image model.path=DIR workload=image_1024 \\
        --a engine.plugin=true --b engine.plugin=false --rounds 16
"""

import argparse
import json
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sweep import config, features, gpus
from sweep.config import RunConfig
from sweep.engines.base import Request
from sweep.engines.host import EngineHost
from sweep.run import engine_spec
from sweep.workload.requests import batches, build_requests


def configured(settings: Sequence[str]) -> RunConfig:
    """The configuration that `python -m sweep` would compose. Raises what Hydra raises."""
    config.register()
    hydra.core.global_hydra.GlobalHydra.instance().clear()
    with initialize_config_dir(str(config.CONF), version_base="1.3"):
        made = OmegaConf.to_object(compose("config", overrides=list(settings)))
    assert isinstance(made, RunConfig)
    made.feature = features.bodies_for(made.feature, made.engine.name)
    return made


def started(run: RunConfig) -> tuple[EngineHost, float]:
    """The loaded engine on the first devices of this machine, and the seconds that its load took."""
    chosen = features.parse_features(run.feature, run.engine.name)
    need = features.gpus_needed(chosen) + features.stage_gpus(run.engine, run.model)
    devices = gpus.discover(run.engine, run.model, run.hardware)
    spec = engine_spec(run, devices, need, tuple(range(need)) if devices.kind == "cuda" else ())
    host = EngineHost(spec, run.engine.load_timeout_s)
    return host, host.load(run.engine.load_timeout_s)


def interval(ratios: Sequence[float], rounds: int = 4000) -> tuple[float, float]:
    """Bootstrap 95 % interval of the median."""
    rng = random.Random(1)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(rounds))
    return medians[int(0.025 * rounds)], medians[int(0.975 * rounds)]


def main() -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.engines", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("settings", nargs="+", help="settings of both, as `python -m sweep` takes them")
    parser.add_argument("--a", nargs="+", required=True, metavar="SETTING")
    parser.add_argument("--b", nargs="+", required=True, metavar="SETTING")
    parser.add_argument("--rounds", type=int, default=12, metavar="N", help="pairs (default 12)")
    parser.add_argument("--goal", type=float, metavar="R", help="exit code 1 when A ÷ B is above this ratio")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all latencies too")
    asked = parser.parse_args()
    runs = [configured([*asked.settings, *side]) for side in (asked.a, asked.b)]
    hosts: list[EngineHost] = []
    latencies: tuple[list[float], list[float]] = ([], [])
    loads = []
    try:
        for name, run in zip("AB", runs, strict=True):
            host, load_s = started(run)
            hosts.append(host)
            loads.append(load_s)
            print(f"{name} {' '.join(asked.a if name == 'A' else asked.b)}: loaded in {load_s:.1f} s", flush=True)
        rounds = [batches(build_requests(run.workload, run.batch, run.seed), run.batch) for run in runs]
        for _ in range(2):
            for side in (0, 1):
                generate(hosts[side], runs[side], rounds[side][0])
        for number in range(asked.rounds):
            for side in (0, 1) if number % 2 == 0 else (1, 0):
                batch = rounds[side][number % len(rounds[side])]
                latencies[side].append(generate(hosts[side], runs[side], batch))
    finally:
        for host in hosts:
            host.close()
    ratios = [a / b for a, b in zip(*latencies, strict=True)]
    ratio, (low, high) = statistics.median(ratios), interval(ratios)
    medians = [statistics.median(side) for side in latencies]
    print(f"A {medians[0]:.4f} s, B {medians[1]:.4f} s a batch (medians of {asked.rounds})")
    print(f"A ÷ B {ratio:.4f} (95 % interval {low:.4f} to {high:.4f})")
    if asked.json:
        told = {"settings": asked.settings, "a": asked.a, "b": asked.b, "load_s": loads, "ratio": ratio}
        asked.json.write_text(json.dumps({**told, "low": low, "high": high, "latency_s": latencies}, indent=1))
    return int(asked.goal is not None and ratio > asked.goal)


def generate(host: EngineHost, run: RunConfig, batch: list[Request]) -> float:
    """Seconds of one batch."""
    return host.generate(batch, None, run.engine.request_timeout_s, "measuring").latency_s


if __name__ == "__main__":
    raise SystemExit(main())
