"""What engine.log ends with where a cell failed: which process its engine was, and how it ended.

An engine that is killed, hangs or cannot be started prints nothing about it, and its log would be empty. Pure except
for the state of the process.
"""

import datetime
import signal
from collections.abc import Sequence

from sweep.engines.process.failures import EngineFailure
from sweep.engines.process.forkserver import UNKNOWN_EXIT
from sweep.engines.process.host import EngineHost

OURS = "[sweep] "
"""Prefix of lines that no engine printed."""


def of(
    failure: EngineFailure, host: EngineHost | None, printed: bool, other: EngineHost | None = None, tried: str = ""
) -> str:
    """Lines for the end of a failed cell's log.

    `host` is its engine, None where none was started; `printed` whether it printed anything during the cell. `other` is
    the interleaved baseline's, where that is what failed; `tried` the folder of the cell in which loading had failed.
    """
    facts = [f"{_now()}: this cell failed: {failure.reason}"]
    if host is not None:
        facts.append(f"its engine was {described(host)}")
    elif tried:
        facts.append(
            f"no engine was started for it; loading one failed in {tried}, whose engine.log has what was printed"
        )
    else:
        facts.append("no engine was started for it")
    if host is not None and not printed:
        facts.append("the engine printed nothing during this cell")
    if other is not None:
        facts.append(f"the interleaved baseline's engine was {described(other)}; it printed last:")
    lines = [f"{OURS}{line}" for line in facts]
    return "\n".join([*lines, *(other.printed_last() if other is not None else ())]) + "\n"


def begun(host: EngineHost | None) -> str:
    """What a cell's log holds while the cell runs, and forever if the sweep itself is killed."""
    engine = described(host) if host is not None else "being started"
    return f"{OURS}{_now()}: this cell began; its engine is {engine}; a sweep that ends on its own writes more here\n"


def described(host: EngineHost) -> str:
    """`vllm_omni, process 4242, spawned at 2026-11-29T22:40:12+00:00 on GPUs 0 and 1; ended by SIGKILL`."""
    spec = host.spec
    on = "the CPU" if spec.device == "cpu" else f"GPU{'s' * (len(spec.gpu_ids) > 1)} {_listed(spec.gpu_ids)}"
    what = f"{spec.engine}, process {host.pid}, {host.how} at {host.started_at} on {on}"
    return f"{what}; {ended(host.process.poll())}"


def ended(code: int | None) -> str:
    """How a process ended, by its exit code: negative for a signal, None while it runs."""
    if code is None:
        return "it goes on"
    if code == UNKNOWN_EXIT:
        return "it has ended, nobody knows how"
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"


def _listed(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
