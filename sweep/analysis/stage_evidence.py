"""Whether the stages of a model ran as asked: fields of model.stages against what was read back. Pure functions.

If an engine drops a field, it measures another cell under this name. So what was read back decides, not what was
passed on. Knows no engine; settings have the names that engines record (profiling.evidence).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sweep.analysis.engagement import Executed
from sweep.analysis.evidence import UNVERIFIABLE
from sweep.config.stages import PREFIX, device_numbers
from sweep.findings import FAIL, WARN, Finding

STAGE_NOT_ENGAGED = "stage_not_engaged"
"""Code: a stage ran with a different value from the requested one."""

ALIKE = {"fp8": "fp8_e4m3"}
"""Names of one value."""

GPU = "gpu"
"""Setting: the device of a rank; with the prefix `ar_`, of the AR stage."""

Settings = Sequence[Mapping[str, str]]
"""Settings of the ranks of a batch; the first rank also has those of the AR stage."""


def asked(stages: Mapping[str, Any] | None) -> dict[str, Any]:
    """Fields of a cell's model.stages that are set, as `ar.max_model_len`; {} for plans from before there were any."""
    found: dict[str, Any] = {}
    for stage in ("ar", "dit"):
        fields = (stages or {}).get(stage) or {}
        found |= {f"{stage}.{name}": value for name, value in fields.items() if value is not None}
    return found


def judge(stages: Mapping[str, Any] | None, starts: Sequence[Executed]) -> list[Finding]:
    """Fields of stages that were set and did not take effect, or are not known to."""
    wrong: dict[str, Finding] = {}
    fields = asked(stages)
    for start in starts if fields else ():
        for batch in start.batches:
            settings = [one.settings for one in batch]
            for name, value in fields.items():
                if name not in wrong and (found := _not_so(name, value, settings)):
                    wrong[name] = found
    return list(wrong.values())


def describe(stages: Mapping[str, Any] | None, start: Executed) -> str:
    """One line: each field that is set, as it was read back; "" where none is."""
    settings = [one.settings for one in start.batches[-1]] if start.batches else []
    return "; ".join(f"{name} {read_back(name, settings) or 'not read back'}" for name in asked(stages))


def read_back(name: str, settings: Settings) -> str:
    """A field of a stage as its engine has it; "" where it does not say."""
    if not settings:
        return ""
    stage, _, short = name.partition(".")
    if short == "devices":
        return _placed(stage, settings)
    if name == "dit.enforce_eager":
        compiled = settings[0].get("compiled", "")
        return str(compiled == "none") if compiled else ""
    return settings[0].get(f"ar_{short}" if stage == "ar" else short, "")


def _not_so(name: str, value: Any, settings: Settings) -> Finding | None:
    found = read_back(name, settings)
    setting = f"{PREFIX}{name}={str(value).lower() if isinstance(value, bool) else value}"
    if not found:
        return Finding(UNVERIFIABLE, f"{setting}: nothing was read back that shows it", WARN)
    if _same(name, value, found):
        return None
    runs = found.lower() if found in ("True", "False") else found
    return Finding(STAGE_NOT_ENGAGED, f"{setting} did not engage: read back was {runs}", FAIL)


def _same(name: str, value: Any, found: str) -> bool:
    if name.endswith(".devices"):
        return found.partition(" ")[0] == str(len(device_numbers(str(value))))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value == "auto" or ALIKE.get(str(value), str(value)) == ALIKE.get(found, found)
    try:
        return math.isclose(float(found), value, rel_tol=1e-6)
    except ValueError:
        return False


def _placed(stage: str, settings: Settings) -> str:
    """`2 GPUs (1+2)`: how many a stage is on, and their names where they are recorded."""
    if stage == "ar":
        count, names = settings[0].get("ar_tp_size", ""), [settings[0].get(f"ar_{GPU}", "")]
    else:
        count, names = str(len(settings)), [one.get(GPU, "") for one in settings]
    known = "+".join(name for name in names if name)
    shown = f" ({'from ' if stage == 'ar' and count != '1' else ''}{known})" if known else ""
    return f"{count} GPU{'s' * (count != '1')}{shown}" if count else ""
