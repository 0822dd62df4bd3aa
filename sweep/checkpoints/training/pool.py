"""What training sees: sentences, their image tokens and pictures, drawn from a seed by several processes."""

import itertools
import multiprocessing
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.checkpoints.training import sizes, tokenizer
from sweep.checkpoints.world import codes, edits, pictures, scenes, sentences

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

CHUNK = 2_000  # scenes that one job draws: what is drawn does not depend on the number of processes
Job = tuple[int, int, int]  # seed, number, scenes
Chunk = tuple[list[str], Any, Any, Any]  # sentences, codes, glyphs, pictures
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


@dataclass(frozen=True)
class Edits:
    """N edits of scenes that are not held out: a picture, an instruction, and the picture that it asks for."""

    prompts: "np.ndarray"  # (N, longest) of token ids, `<|image|>` where the source's tokens go, padded on the right
    lengths: "np.ndarray"  # (N,) of prompts
    codes: "np.ndarray"  # (N, 2, 4): target tokens of the source and of the requested picture
    glyphs: "np.ndarray"  # (N, GLYPHS), of the instruction
    pictures: "np.ndarray"  # (N, 2, 64, 64, 3) of uint8

    def __len__(self) -> int:
        return len(self.lengths)


def draw(folder: Path, words: "Tokenizer", count: int, seed: int, processes: int) -> None:
    """Draw `count` scenes (at least CHUNK) and write them to `folder`."""
    _write(folder, words, tokenizer.prompt, _drawn(_draw_chunk, count, seed, processes))


def draw_edits(folder: Path, words: "Tokenizer", count: int, seed: int, processes: int) -> None:
    """Draw `count` edits (at least CHUNK) and write them to `folder`."""
    _write(folder, words, tokenizer.edit_prompt, _drawn(_draw_edits, count, seed, processes))


def _drawn(chunk: Callable[[Job], Chunk], count: int, seed: int, processes: int) -> list[Chunk]:
    jobs = [(seed, number, min(CHUNK, count)) for number in range(max(1, count // CHUNK))]
    with multiprocessing.get_context("fork").Pool(processes) as workers:
        return workers.map(chunk, jobs, chunksize=1)


def _write(folder: Path, words: "Tokenizer", prompt: Callable[[str], str], parts: list[Chunk]) -> None:
    import numpy as np

    ids = [one.ids for one in words.encode_batch([prompt(said) for part in parts for said in part[0]])]
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
    return Pool(*_read(folder))


def load_edits(folder: Path) -> Edits:
    """What `draw_edits` wrote."""
    return Edits(*_read(folder))


def _read(folder: Path) -> "list[np.ndarray]":
    import numpy as np

    names = ("prompts", "lengths", "codes", "glyphs", "pictures")
    return [np.load(folder / f"{name}.npy", mmap_mode="r") for name in names]


def glyph_ids(text: str) -> list[int]:
    """Byte ids of a quoted text and its end, padded on the left with 0 to GLYPHS."""
    real = [byte + BYTE_OFFSET for byte in text.encode()] + [BYTE_END]
    return [0] * (sizes.GLYPHS - len(real)) + real


def _draw_chunk(job: Job) -> Chunk:
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


def _draw_edits(job: Job) -> Chunk:
    """Instructions, and codes, glyphs and pictures of their scenes before and after."""
    import numpy as np

    seed, number, count = job
    rng = random.Random(f"edits {seed} {number}")
    said, tokens, glyphs = [], [], []
    drawn = np.empty((count, 2, sizes.SIDE, sizes.SIDE, 3), dtype=np.uint8)
    for place, edit in enumerate(itertools.islice(edits.examples(rng.getrandbits(32), held=False), count)):
        said.append(edit.instruction)
        tokens.append([codes.target(edit.source), codes.target(edit.target)])
        rewritten = edit.target.writing if edit.kind == "rewrite" else None
        glyphs.append(glyph_ids(rewritten.text if rewritten else ""))
        before = pictures.place(edit.source, rng)
        drawn[place, 0] = np.round(pictures.draw(edit.source, before) * 255)
        drawn[place, 1] = np.round(pictures.draw(edit.target, edits.placed(edit, before)) * 255)
    return said, np.array(tokens, dtype=np.int16), np.array(glyphs, dtype=np.int16), drawn
