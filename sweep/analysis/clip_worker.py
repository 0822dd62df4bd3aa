"""CLIP similarity: `python -m sweep.analysis.clip_worker FOLDER`, pairs of image files as JSON on standard input.

Prints one JSON list: for each pair the cosine of the two image embeddings, in [-1, 1]; 1 means identical to CLIP.
FOLDER is a CLIP checkpoint on this machine; nothing is downloaded. Runs as its own process, because it imports torch.
"""

import json
import sys
from pathlib import Path
from typing import Any

BATCH = 16  # images embedded at once


def similarities(checkpoint: Path, pairs: list[tuple[str, str]]) -> list[float]:
    """Cosine of each pair. Raises OSError or ValueError when the checkpoint or an image cannot be read."""
    import torch
    from transformers import CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection.from_pretrained(checkpoint, local_files_only=True).eval()
    pixels = preprocessing(checkpoint, model.config.image_size)
    files = list(dict.fromkeys(file for pair in pairs for file in pair))
    embedded: dict[str, Any] = {}
    with torch.no_grad():
        for first in range(0, len(files), BATCH):
            some = files[first : first + BATCH]
            batch = torch.stack([pixels(file) for file in some])
            features = torch.nn.functional.normalize(model(pixel_values=batch).image_embeds, dim=-1)
            embedded |= dict(zip(some, features.double(), strict=True))
    return [float(embedded[a] @ embedded[b]) for a, b in pairs]


def preprocessing(checkpoint: Path, size: int) -> Any:
    """File -> 3 × size × size tensor as CLIP was trained on: shorter side resized, centre cut out, normalised."""
    import numpy as np
    import torch
    from PIL import Image

    file = checkpoint / "preprocessor_config.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    mean = np.array(known.get("image_mean", (0.48145466, 0.4578275, 0.40821073)))
    std = np.array(known.get("image_std", (0.26862954, 0.26130258, 0.27577711)))

    def read(name: str) -> torch.Tensor:
        with Image.open(name) as image:
            picture = image.convert("RGB")
        scale = size / min(picture.size)
        picture = picture.resize([max(size, round(side * scale)) for side in picture.size], Image.Resampling.BICUBIC)
        left, top = ((side - size) // 2 for side in picture.size)
        array = np.asarray(picture.crop((left, top, left + size, top + size))) / 255.0
        return torch.from_numpy(((array - mean) / std).transpose(2, 0, 1).astype(np.float32))

    return read


if __name__ == "__main__":
    print(json.dumps(similarities(Path(sys.argv[1]), [tuple(pair) for pair in json.load(sys.stdin)])))
