"""A folder of edits of the world, as `workload.edits` takes it: pictures, instructions, and what they truly lead to.

Most lines have several turns. Each edits another thing in another way, and all can be checked. `truth/` has the picture
that each turn asks for, with everything where it was; no sweep reads it.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from profiling.atomic_write import replaced
from sweep.checkpoints.world import edits, pictures, scenes
from sweep.checkpoints.world.edits import Edit
from sweep.checkpoints.world.scenes import Scene

if TYPE_CHECKING:
    pass

SINGLE = 4
"""One line in this many has a single turn."""


def chains(turns: int, seed: int) -> Iterator[list[Edit]]:
    """Endless lists of edits, each of the previous one's result. Kinds differ as long as there are enough.

    The scenes are held out: training never sees them.
    """
    rng = random.Random(f"edits in turns {seed}")
    for asked in scenes.wishes(seed, held=True):
        found = _chain(scenes.arrange(asked, rng), turns, rng)
        if found is not None:
            yield found


def _chain(source: Scene, turns: int, rng: random.Random) -> list[Edit] | None:
    found: list[Edit] = []
    for _ in range(turns):
        edit = edits.draw_edit(found[-1].target if found else source, rng)
        if edit is None or (turns <= 4 and edit.kind in {one.kind for one in found}):
            return None
        found.append(edit)
    return found


def write(folder: Path, lines: int, turns: int, side: int, seed: int) -> None:
    """Write edits.jsonl, its pictures and their truth: squares of `side` pixels, a multiple of 64. Raises OSError."""
    several, single = chains(turns, seed), chains(1, seed + 1)
    listed = []
    for number in range(1, lines + 1):
        chain = next(single if number % SINGLE == 0 else several)
        name = f"scene_{number:02d}.png"
        placed = pictures.place(chain[0].source, random.Random(f"{seed} {number}"))
        _save(folder / name, chain[0].source, placed, side)
        for turn, edit in enumerate(chain, start=1):
            placed = edits.placed(edit, placed)
            _save(folder / "truth" / f"scene_{number:02d}_turn_{turn}.png", edit.target, placed, side)
        said = [edit.instruction for edit in chain]
        listed.append({"image": name, "turns": said} if len(said) > 1 else {"image": name, "instruction": said[0]})
    with replaced(folder / "edits.jsonl") as unfinished:
        unfinished.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in listed), encoding="utf-8")


def _save(path: Path, scene: Scene, placed: pictures.Placement, side: int) -> None:
    import numpy as np
    from PIL import Image

    drawn: np.ndarray = pictures.draw(scene, placed, side // pictures.SIDE)
    with replaced(path) as unfinished:
        Image.fromarray(np.round(drawn * 255).astype(np.uint8)).save(unfinished, format="PNG")
