"""Writes tensors one by one into sharded safetensors files with an index, the format of large models.

Only one tensor is ever in memory, because headers follow from the shapes. Everything is bfloat16.
Format: https://huggingface.co/docs/safetensors (8 bytes of header length, JSON header, raw values).
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.checkpoints.weights import Shape

if TYPE_CHECKING:
    import torch

SHARD_BYTES = 4 * 2**30
BYTES = 2  # of one bfloat16
ALIGNMENT = 8  # of the values behind the header


def split(shapes: Mapping[str, Shape], limit: int = SHARD_BYTES) -> list[dict[str, Shape]]:
    """Group tensors, in order, into shards of at most `limit` bytes; a larger tensor gets a shard of its own."""
    shards: list[dict[str, Shape]] = []
    size = limit + 1
    for name, shape in shapes.items():
        size += _bytes(shape)
        if size > limit:
            shards.append({})
            size = _bytes(shape)
        shards[-1][name] = shape
    return shards


def write(
    folder: Path,
    stem: str,
    shapes: Mapping[str, Shape],
    draw: Callable[[str, Shape], "torch.Tensor"],
    limit: int = SHARD_BYTES,
    progress: Callable[[int, int], None] = lambda done, shards: None,
) -> None:
    """Write `stem.safetensors`, or `stem-00001-of-0000N.safetensors` … and `stem.safetensors.index.json`.

    `draw` gives each tensor on the CPU in bfloat16; `progress` is called after each shard (done, total).
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards = split(shapes, limit)
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        alone = len(shards) == 1
        name = f"{stem}.safetensors" if alone else f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(folder / name, shard, draw)
        places.update(dict.fromkeys(shard, name))
        progress(number, len(shards))
    if len(shards) > 1:
        total = sum(_bytes(shape) for shape in shapes.values())
        index = {"metadata": {"total_size": total}, "weight_map": places}
        text = json.dumps(index, indent=2) + "\n"
        (folder / f"{stem}.safetensors.index.json").write_text(text, encoding="utf-8")


def _write_shard(path: Path, shapes: Mapping[str, Shape], draw: Callable[[str, Shape], "torch.Tensor"]) -> None:
    import torch

    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + _bytes(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little"))
        file.write(head)
        for name, shape in shapes.items():
            tensor = draw(name, shape)
            if tensor.dtype != torch.bfloat16 or tuple(tensor.shape) != shape:
                raise ValueError(f"{name}: drew {tensor.dtype} {tuple(tensor.shape)} instead of bfloat16 {shape}")
            file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)


def _bytes(shape: Shape) -> int:
    return math.prod(shape) * BYTES
