"""How times and folders are read as people type them: `1h30min`, `~/models`."""

import re
from pathlib import Path

from sweep.refusals import ConfigError, require

_UNITS_S = {"h": 3600.0, "min": 60.0, "s": 1.0}
_PART = re.compile(rf"(\d+(?:\.\d+)?)({'|'.join(_UNITS_S)})")


def seconds_of(text: str, name: str) -> float:
    """`90s`, `20min`, `2h` or `1h30min` in seconds. Raises ConfigError, which names the field."""
    plain = text.replace(" ", "")
    parts = _PART.findall(plain)
    meant = "a time in s, min or h, as in 90s, 20min or 1h30min"
    require(bool(parts) and _PART.sub("", plain) == "", f"{name}={text}: give it {meant}")
    found = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    require(found > 0, f"{name}={text}: must be more than 0; give it {meant}")
    return found


def at_home(path: str | None) -> str | None:
    """`~/x` as a full path, since shells do not expand it after a `=`; others unchanged. Raises ConfigError."""
    if path is None or not path.startswith("~"):
        return path
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        raise ConfigError(f"{path}: no such home folder; write the whole path") from error
