"""AIPerf and GuideLLM, as published: their command lines for a load, and what their own reports say about it.

Both need a tokenizer and get the embedded model's. The server counts tokens: those of an AR stage are image codes,
which a tokenizer splits into letters. Checked with AIPerf 0.13, GuideLLM 0.3.1 and 0.8.1.
"""

import json
import os
import resource
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

TOKENIZER = Path(__file__).resolve().parents[2] / "sweep/engines/diffusers/tiny_models/world_2/processor"
LONGEST_S = 900.0  # of a run
SHOWN = 2000  # characters of what a peer says when it fails


class PeerFailed(Exception):
    """A peer did not do its work; says why."""


@dataclass(frozen=True)
class Load:
    """What a peer has to send."""

    url: str
    model: str
    count: int  # requests
    flight: int  # in flight
    picture: bool = False  # else texts that stream
    input_len: int = 8
    output_len: int = 100


@dataclass(frozen=True)
class Found:
    """What a client reports about a load, and what it used."""

    rate: float  # requests a second
    cpu_s: float  # of all its processes, from its start to its end
    ttft_ms: float = 0.0  # means, of a text
    itl_ms: float = 0.0  # from its first token to its last, by gaps between tokens
    sender_cpu_s: float = 0.0  # of the process that sends, while it does; 0 where that is not known


@dataclass(frozen=True)
class AIPerf:
    """`aiperf profile`."""

    program: Path
    name: ClassVar[str] = "AIPerf"

    def version(self) -> str:
        """As it says."""
        return _version(self.program)

    def refusal(self, load: Load) -> str:
        """Why it cannot send a load; "" if it can."""
        return ""

    def run(self, load: Load) -> Found:
        """Send a load. Raises PeerFailed."""
        options = {
            **{"-m": load.model, "--url": load.url, "--tokenizer": TOKENIZER, "--ui": "none"},
            **{"--endpoint-type": "image-generation" if load.picture else "completions"},
            **{"--isl": load.input_len, "--isl-stddev": 0, "--concurrency": load.flight, "--request-count": load.count},
        }
        flags = ["--no-server-metrics", "--no-gpu-telemetry"]
        if not load.picture:
            options |= {"--osl": load.output_len, "--osl-stddev": 0}
            flags += ["--streaming", "--use-server-token-count"]
        with tempfile.TemporaryDirectory() as folder:
            given = [str(one) for pair in {**options, "--output-artifact-dir": folder}.items() for one in pair]
            # When it is set to offline, it accepts no folder for a tokenizer.
            environment = {name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")}
            cpu_s = ran([str(self.program), "profile", *given, *flags], environment)
            report = _read(Path(folder) / "profile_export_aiperf.json")
        mean = {name: one["avg"] for name, one in report.items() if isinstance(one, dict) and "avg" in one}
        _all_answered(int(mean.get("request_count", 0)), load, str(report.get("error_summary", "")))
        ttft_ms, itl_ms = (mean.get(name, 0.0) for name in ("time_to_first_token", "inter_token_latency"))
        return Found(mean["request_throughput"], cpu_s, ttft_ms, itl_ms)


@dataclass(frozen=True)
class GuideLLM:
    """`guidellm run`, or `guidellm benchmark run` before 0.4."""

    program: Path
    name: ClassVar[str] = "GuideLLM"

    def version(self) -> str:
        """As it says."""
        return _version(self.program)

    def refusal(self, load: Load) -> str:
        """Why it cannot send a load; "" if it can."""
        return "asks for no images" if load.picture else ""

    def run(self, load: Load) -> Found:
        """Send a load. Raises PeerFailed."""
        old = " 0.3." in self.version()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "benchmarks.json"
            command = [str(self.program), *(_before_0_4(load, file) if old else _since_0_8(load, file))]
            cpu_s = ran(command, {**os.environ, "HF_HUB_OFFLINE": "1"})
            (report,) = _read(file)["benchmarks"]
        kept = report["requests"]
        _all_answered(len(kept["successful"]), load, str([*(kept["errored"] or []), *(kept["incomplete"] or [])]))
        names = ("requests_per_second", "time_to_first_token_ms", "inter_token_latency_ms")
        rate, ttft_ms, itl_ms = (report["metrics"][name]["successful"]["mean"] for name in names)
        return Found(rate, cpu_s, ttft_ms, itl_ms)


def _before_0_4(load: Load, file: Path) -> list[str]:
    lengths = f"prompt_tokens={load.input_len},output_tokens={load.output_len}"
    options = {
        **{"--target": load.url, "--model": load.model, "--processor": TOKENIZER, "--data": lengths},
        **{"--rate-type": "concurrent", "--rate": load.flight, "--max-requests": load.count, "--output-path": file},
    }
    return ["benchmark", "run", "--disable-progress", *(str(one) for pair in options.items() for one in pair)]


def _since_0_8(load: Load, file: Path) -> list[str]:
    options = {
        "backend": f"openai_http,target={load.url},model={load.model},request_format=/v1/completions",
        "profile": f"concurrent,streams={load.flight}",
        "constraint": f"max_requests,count={load.count}",
        "tokenizer": f"hf_auto,model={TOKENIZER}",
        "data": f"synthetic_text,prompt_tokens={load.input_len},output_tokens={load.output_len}",
        "output": f"json,path={file}",
    }
    given = [one for name, value in options.items() for one in (f"--{name}", f"kind={value}")]
    return ["run", "--disable-console-interactive", *given]


def ran(command: Sequence[str], environment: Mapping[str, str] | None = None) -> float:
    """Processor time of a command and of all its processes, in seconds. Raises PeerFailed."""
    before_s = children_cpu_s()
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"not done after {LONGEST_S:.0f} s") from None
    if done.returncode:
        raise PeerFailed(f"ended with {done.returncode}: {' '.join((done.stdout + done.stderr).split())[-SHOWN:]}")
    return children_cpu_s() - before_s


def children_cpu_s() -> float:
    """Processor time of all processes that were started here and have ended, with their children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _version(program: Path) -> str:
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=60)
    return f" {said.stdout.split()[-1]}" if said.stdout.split() else " of unknown version"


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise PeerFailed("wrote no report")
    report: dict[str, Any] = json.loads(file.read_bytes())
    return report


def _all_answered(answered: int, load: Load, others: str) -> None:
    if answered != load.count:
        raise PeerFailed(f"{answered} of {load.count} requests succeeded; of the others it says {others[:SHOWN]}")
