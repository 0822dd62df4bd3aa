"""What a model gets right of edits, of pictures that training never saw, through the pipeline itself.

python -m sweep.checkpoints.training.edit_scores MODEL [--count 200] [--steps 20] [--guidance 1.5,4] [--json FILE]
"""

import argparse
import dataclasses
import itertools
import json
import random
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.checkpoints.training import scores
from sweep.checkpoints.world import edit_checks, edits, pictures
from sweep.checkpoints.world.edits import Edit

if TYPE_CHECKING:
    import numpy as np

SEED = 2424  # of held-out edits


@dataclass(frozen=True)
class EditScore:
    """Shares in [0, 1] over edits."""

    steps: int
    guidance: float
    edits: int
    done: float  # everything requested is done
    kept: float  # everything else is unchanged
    both: float
    kinds: Mapping[str, float]  # both hold, by kind of edit


def held_out(count: int, seed: int = SEED) -> "list[tuple[np.ndarray, Edit]]":
    """Source pictures (64, 64, 3) of uint8 that training never saw, and their edits."""
    import numpy as np

    rng = random.Random(seed)
    chosen = itertools.islice(edits.examples(seed, held=True), count)
    return [(np.round(pictures.render(edit.source, rng) * 255).astype(np.uint8), edit) for edit in chosen]


def measure(pipeline: Any, count: int, steps: int, guidance: float, batch: int = 50) -> EditScore:
    """Edit with the pipeline and check every picture."""
    asked = held_out(count)
    made: list[np.ndarray] = []
    for first in range(0, count, batch):
        made += draw(pipeline, asked[first : first + batch], steps, guidance, seed=first)
    return score(asked, made, steps, guidance)


def draw(
    pipeline: Any, asked: "Sequence[tuple[np.ndarray, Edit]]", steps: int, guidance: float, seed: int = 0
) -> "list[np.ndarray]":
    """Edited pictures (64, 64, 3) in [0, 1], as one batch."""
    import torch
    from PIL import Image

    made = pipeline(
        [edit.instruction for _, edit in asked],
        image=[[Image.fromarray(source)] for source, _ in asked],
        height=pictures.SIDE,
        width=pictures.SIDE,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(seed + place) for place in range(len(asked))],
        output_type="np",
    )
    return list(made.images)


def score(
    asked: "Sequence[tuple[np.ndarray, Edit]]", made: "Sequence[np.ndarray]", steps: int, guidance: float
) -> EditScore:
    """Check edited pictures, made like this, against their sources and instructions."""
    import numpy as np

    done, kept = [], []
    kinds: dict[str, list[bool]] = defaultdict(list)
    for (source, edit), picture in zip(asked, made, strict=True):
        found = edit_checks.facts(source.astype(np.float32) / 255, picture, edit)
        done.append(all(fact.right for fact in found if fact.kind != edit_checks.REST))
        kept.append(all(fact.right for fact in found if fact.kind == edit_checks.REST))
        kinds[edit.kind].append(done[-1] and kept[-1])
    return EditScore(
        steps,
        guidance,
        len(made),
        scores.share(done),
        scores.share(kept),
        scores.share([one and other for one, other in zip(done, kept, strict=True)]),
        {kind: scores.share(rights) for kind, rights in sorted(kinds.items())},
    )


def described(one: EditScore) -> str:
    """One line for people."""
    kinds = ", ".join(f"{kind} {share:.1%}" for kind, share in one.kinds.items())
    whole = f"{one.both:.1%} of {one.edits} edits done with the rest untouched"
    return f"{one.steps} steps, guidance {one.guidance:g}: {whole} ({one.done:.1%} done, {one.kept:.1%} kept; {kinds})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each number of steps and guidance."""
    parser = argparse.ArgumentParser(prog="python -m sweep.checkpoints.training.edit_scores", description=__doc__)
    parser.add_argument("model", type=Path, help="folder that training exported")
    parser.add_argument("--count", type=int, default=200, help="held-out edits")
    parser.add_argument("--steps", default="20", help="comma-separated")
    parser.add_argument("--guidance", default="4", help="comma-separated; 1 switches it off")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the scores here")
    options = parser.parse_args(arguments)
    pipeline = scores.load(options.model, options.device)
    found = []
    for steps, guidance in itertools.product(options.steps.split(","), options.guidance.split(",")):
        one = measure(pipeline, options.count, int(steps), float(guidance))
        print(described(one), flush=True)
        found.append(dataclasses.asdict(one))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
