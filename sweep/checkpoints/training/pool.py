"""What training sees: sentences, their image tokens and pictures, drawn from a seed by several processes."""

import multiprocessing
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.checkpoints.training import sizes, tokenizer
from sweep.checkpoints.world import codes, pictures, scenes, sentences

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

CHUNK = 2_000  # scenes that one job draws: what is drawn does not depend on the number of processes
BYTE_OFFSET, BYTE_END = 3, 1  # of ByT5's ids


@dataclass(frozen=True)
class Pool:
    """N scenes that are not held out. Arrays are read from disk as they are used."""

    prompts: "np.ndarray"  # (N, longest) of token ids, padded on the right
    lengths: "np.ndarray"  # (N,) of prompts
    codes: "np.ndarray"  # (N, 260): preview, then target
    glyphs: "np.ndarray"  # (N, GLYPHS) of byte ids of the quoted text and its end, padded on the left with 0
    pictures: "np.ndarray"  # (N, 64, 64, 3) of uint8

    def __len__(self) -> int:
        return len(self.lengths)


def draw(folder: Path, words: "Tokenizer", count: int, seed: int, processes: int) -> None:
    """Draw `count` scenes (at least CHUNK) and write them to `folder`."""
    import numpy as np

    jobs = [(seed, number, min(CHUNK, count)) for number in range(max(1, count // CHUNK))]
    with multiprocessing.get_context("fork").Pool(processes) as workers:
        parts = workers.map(_draw_chunk, jobs, chunksize=1)
    said = [sentence for part in parts for sentence in part[0]]
    ids = [one.ids for one in words.encode_batch([tokenizer.prompt(sentence) for sentence in said])]
    prompts = np.full((len(ids), max(map(len, ids))), sizes.PAD, dtype=np.int16)
    for row, one in zip(prompts, ids, strict=True):
        row[: len(one)] = one
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "prompts.npy", prompts)
    np.save(folder / "lengths.npy", np.array([len(one) for one in ids], dtype=np.int16))
    for place, name in ((1, "codes"), (2, "glyphs"), (3, "pictures")):
        np.save(folder / f"{name}.npy", np.concatenate([part[place] for part in parts]))


def load(folder: Path) -> Pool:
    """What `draw` wrote."""
    import numpy as np

    names = ("prompts", "lengths", "codes", "glyphs", "pictures")
    return Pool(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))


def glyph_ids(text: str) -> list[int]:
    """Byte ids of a quoted text and its end, padded on the left with 0 to GLYPHS."""
    real = [byte + BYTE_OFFSET for byte in text.encode()] + [BYTE_END]
    return [0] * (sizes.GLYPHS - len(real)) + real


def _draw_chunk(job: tuple[int, int, int]) -> tuple[list[str], Any, Any, Any]:
    """Sentences, codes, glyphs and pictures of one job."""
    import numpy as np

    seed, number, count = job
    rng = random.Random(f"{seed} {number}")
    wishes = scenes.wishes(rng.getrandbits(32), held=False)
    said, tokens, glyphs = [], [], []
    drawn = np.empty((count, sizes.SIDE, sizes.SIDE, 3), dtype=np.uint8)
    for place in range(count):
        asked = next(wishes)
        scene = scenes.arrange(asked, rng)
        said.append(sentences.write(asked, rng))
        tokens.append(codes.encode(scene))
        glyphs.append(glyph_ids(scene.writing.text if scene.writing else ""))
        drawn[place] = np.round(pictures.render(scene, rng) * 255)
    return said, np.array(tokens, dtype=np.int16), np.array(glyphs, dtype=np.int16), drawn
