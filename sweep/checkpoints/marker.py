"""`random_weights.json`: what distinguishes a random-weight checkpoint from a trained one. Reads only JSON."""

import json
from pathlib import Path

NAME = "random_weights.json"
NOTE = "random weights: quality and cache speedups are not representative"


def read_marker(folder: Path) -> dict[str, object] | None:
    """The contents of `random_weights.json` in `folder`, or None when the folder holds no such file.

    Keys: note, model, layers (part → count), seed, tiny, recipe (version), residual_scaling, parameters
    (part → count), device ("cpu" or "cuda": where the numbers were drawn), versions.
    A file that is not a JSON object still marks the folder; then the result is `{"note": …}` alone.
    """
    try:
        text = (folder / NAME).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    return data if isinstance(data, dict) else {"note": NOTE}
