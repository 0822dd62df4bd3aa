"""Combos: a file with what is served and lists of lengths, concurrencies and request counts, as parameters of a sweep.

`+combos=FILE` is `engine=endpoint workload=text load=closed` with one axis for each list. Its names are those of
vLLM's serving benchmark.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweep.refusals import ConfigError, nearest, require

NAMES = {
    "model": "engine.served_model",
    "base_url": "engine.url",
    "tokenizer": "",  # the server counts tokens
    "input_len": "workload.input_len",
    "output_len": "workload.output_len",
    "concurrency": "load.max_concurrency",
    "prompt": "load.num_requests",
}
"""Keys of the file, and the parameter that each sets; "": accepted but not needed."""

ALWAYS = {"engine": "endpoint", "workload": "text", "load": "closed"}


def parameters(path: Path) -> dict[str, str]:
    """The parameters of a combos file, as a study's. Raises ConfigError with one line for the user."""
    import yaml

    asked = f"combos={path}"
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{asked}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{asked}: not YAML: {' '.join(str(error).split())}") from error
    require(isinstance(data, Mapping) and bool(data), f"{asked}: must hold keys such as {', '.join(NAMES)}")
    for name in map(str, data):
        require(name in NAMES, f"{asked}: unknown key '{name}'{nearest(name, NAMES)}")
    found = {NAMES[name]: _values(asked, name, value) for name, value in data.items() if NAMES[name]}
    return ALWAYS | found


def _values(asked: str, name: str, value: Any) -> str:
    """A value or a list as on the command line. Texts are quoted, so that nothing in them is read as grammar."""
    values = value if isinstance(value, list) else [value]
    require(bool(values), f"{asked}: {name} is an empty list")
    numbers = name not in ("model", "base_url")
    for one in values:
        right = isinstance(one, int) and not isinstance(one, bool) if numbers else isinstance(one, str)
        require(right, f"{asked}: {name}={one}: must be {'a whole number' if numbers else 'a text'}")
    return ",".join(str(one) if numbers else _quoted(one) for one in values)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
