"""The headers of safetensors files: names and shapes of tensors, without their values and without torch.

Format: eight bytes of length, then JSON (https://huggingface.co/docs/safetensors).
"""

import json
from pathlib import Path

MOST_HEADER = 200_000_000
"""Bytes of the longest header that is read."""

Shape = tuple[int, ...]


def shapes(path: Path) -> dict[str, Shape]:
    """Shapes of the tensors of one file, by name. Raises ValueError for a file that is not safetensors, and OSError."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MOST_HEADER, path.stat().st_size):
            raise ValueError(f"{path.name} is no safetensors")
        header = json.loads(file.read(length))
    return {name: tuple(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__"}


def files(folder: Path) -> list[Path]:
    """The safetensors of a folder; a second copy in another precision (`model.fp16.safetensors`) is left out."""
    found = sorted(folder.glob("*.safetensors"))
    return [path for path in found if "." not in path.stem] or found


def shapes_in(folder: Path) -> dict[str, Shape]:
    """Shapes of the tensors in all of these. Raises as `shapes`."""
    return {name: shape for path in files(folder) for name, shape in shapes(path).items()}
