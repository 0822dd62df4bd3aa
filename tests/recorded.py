"""Cells that were measured on an H200 (vLLM-Omni 0.26, random weights, 1024², 20 steps), unpacked as they lay on disk.

`glm_b4`: GLM-Image, AR and DiT stage on one GPU, one batch of four. `int8_b2`: Qwen-Image, two batches of two.
"""

import gzip
from pathlib import Path

DATA = Path(__file__).parent / "data" / "timeline"


def unpack(name: str, folder: Path) -> Path:
    """The cell's files in `folder`; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    for packed in (DATA / name).glob("*.gz"):
        (folder / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    return folder
