"""What one setting of an engine costs: `python -m tests.bench.engines SETTING… --a SETTING… --b SETTING…`.

Two engines that differ in the settings after --a and --b are loaded on the same devices and generate the same requests
in turns (A B, B A, …), so that drift affects both equally. Prints the median ratio of their latencies with its 95 %
interval (bootstrap over the pairs) and how long each start took. Identical engines differ by start, by some 0.3 % on a
GPU: `--starts 2` loads A B, B A, all four at once, and takes pairs from both. Ctrl-C ends it with what it has. For
example what a forked start costs:

    python -m tests.bench.engines engine=vllm_omni model=qwen_image model.path=DIR workload=image_1024 \\
        --a engine.fork=true --b engine.fork=false --starts 2 --rounds 16
"""

import argparse
import dataclasses
import json
import random
import signal
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sweep.config.run import CONF, RunConfig, register
from sweep.engines import registry
from sweep.engines.process.host import EngineHost
from sweep.engines.protocol import Request
from sweep.machine.devices import discover
from sweep.plan import features
from sweep.plan.engine_spec import engine_spec
from sweep.workload.requests import batches, build_requests


def configured(settings: Sequence[str]) -> RunConfig:
    """The configuration that `python -m sweep` would compose. Raises what Hydra raises."""
    register()
    hydra.core.global_hydra.GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        made = OmegaConf.to_object(compose("config", overrides=list(settings)))
    assert isinstance(made, RunConfig)
    made.feature = features.bodies_for(made.feature, made.engine.name)
    return made


def started(run: RunConfig) -> tuple[EngineHost, float]:
    """The loaded engine on the first devices of this machine, and the seconds that its load took."""
    chosen = features.parse_features(run.feature, run.engine.name)
    need = features.gpus_needed(chosen) + registry.kind(run.engine.name).stage_devices(run)
    devices = discover(run.engine, run.model, run.hardware)
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
    parser.add_argument("--rounds", type=int, default=12, metavar="N", help="pairs of each start (default 12)")
    parser.add_argument("--starts", type=int, default=1, metavar="N", help="engines of each side (default 1)")
    parser.add_argument("--goal", type=float, metavar="R", help="exit code 1 when A ÷ B is above this ratio")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all latencies too")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sides = {"A": configured([*asked.settings, *asked.a]), "B": configured([*asked.settings, *asked.b])}
    order = [name for number in range(asked.starts) for name in ("AB" if number % 2 == 0 else "BA")]
    hosts: list[EngineHost] = []
    measured: list[Pair] = []
    loads = []
    try:
        for name in order:
            host, load_s = started(sides[name])
            hosts.append(host)
            loads.append(load_s)
            print(f"{name} {' '.join(asked.a if name == 'A' else asked.b)}: loaded in {load_s:.1f} s", flush=True)
        measure(list(zip(order, hosts, strict=True)), sides, asked.rounds, measured)
    except KeyboardInterrupt:
        if not measured:
            raise
    finally:
        for host in hosts:
            host.close()
    ratios = [pair.a_s / pair.b_s for pair in measured]
    ratio, (low, high) = statistics.median(ratios), interval(ratios)
    for start in range(asked.starts):
        mine = [pair for pair in measured if pair.start == start]
        a_s, b_s = statistics.median(p.a_s for p in mine), statistics.median(p.b_s for p in mine)
        print(f"start {start + 1}: A {a_s:.4f} s, B {b_s:.4f} s a batch (medians of {len(mine)})")
    print(f"A ÷ B {ratio:.4f} (95 % interval {low:.4f} to {high:.4f}, {len(ratios)} pairs)")
    if asked.json:
        data = {"settings": asked.settings, "a": asked.a, "b": asked.b, "load_s": loads, "ratio": ratio}
        pairs = [dataclasses.astuple(pair) for pair in measured]
        asked.json.write_text(json.dumps({**data, "low": low, "high": high, "start_a_s_b_s": pairs}, indent=1))
    return int(asked.goal is not None and ratio > asked.goal)


@dataclass(frozen=True)
class Pair:
    """The same batch by both sides, seconds; `start` numbers the two engines."""

    start: int
    a_s: float
    b_s: float


def measure(
    hosts: Sequence[tuple[str, EngineHost]], sides: Mapping[str, RunConfig], rounds: int, measured: list[Pair]
) -> None:
    """Append the pairs of each round as it ends. `hosts` are two and two of a start, with their sides."""
    requests = {
        name: batches(build_requests(run.workload, run.batch, run.seed), run.batch) for name, run in sides.items()
    }
    for _ in range(2):
        for name, host in hosts:
            generate(host, sides[name], requests[name][0])
    for number in range(rounds):
        latency_s: dict[tuple[int, str], float] = {}
        turns = list(enumerate(hosts))
        for place, (name, host) in turns if number % 2 == 0 else turns[::-1]:
            batch = requests[name][number % len(requests[name])]
            latency_s[place // 2, name] = generate(host, sides[name], batch)
        measured += [Pair(start, latency_s[start, "A"], latency_s[start, "B"]) for start in range(len(hosts) // 2)]


def generate(host: EngineHost, run: RunConfig, batch: list[Request]) -> float:
    """Seconds of one batch."""
    return host.generate(batch, None, run.engine.request_timeout_s, "measuring").latency_s


if __name__ == "__main__":
    raise SystemExit(main())
