"""What a load mixes: pictures that are made and ones that are edited, of several sizes. Pure, all from a seed.

A longer list of requests begins with a shorter one, and what is drawn of one kind changes nothing of the other.
"""

import dataclasses
import math
import random
from collections.abc import Sequence

from sweep.config.load import CHOICE, PARETO, Mix
from sweep.engines.protocol import Request

TO_MAKE = ""
"""Input image of an edit whose picture is made before it is sent."""


def mixed(
    requests: Sequence[Request],
    mix: Mix,
    seed: int,
    instructions: Sequence[str],
    prompts: int,
    multiple: int,
    most_pixels: int,
) -> list[Request]:
    """The requests, some of them edits by `instructions`, and each with a size of its own.

    Sides are multiples of `multiple` pixels, and no picture has more than `most_pixels`. `prompts` is how many prompts
    there are without the instructions, whose prompt_index counts on from theirs.
    """
    kinds, sides = random.Random(f"edits {seed}"), random.Random(f"sizes {seed}")
    found, edited = [], 0
    for request in requests:
        if kinds.random() < (mix.edits or 0.0):
            place, again = edited % len(instructions), edited // len(instructions)
            edited += 1
            request = dataclasses.replace(
                request,
                prompt=instructions[place],
                prompt_index=prompts + place,
                seed=seed + again,
                input_image=TO_MAKE,
                prompt_tokens=None,
            )
        width, height = size(request.size, mix, sides, multiple, most_pixels)
        found.append(dataclasses.replace(request, width=width, height=height))
    return found


def size(asked: tuple[int, int], mix: Mix, rng: random.Random, multiple: int, most_pixels: int) -> tuple[int, int]:
    """Width and height of the next picture: as configured, or a square whose side follows the mix's law."""
    if mix.sizes == CHOICE:
        return (side := rng.choice(mix.sides)), side
    if mix.sizes == PARETO:
        longest = math.isqrt(most_pixels) // multiple * multiple
        drawn = (mix.x_min or asked[0]) * rng.paretovariate(mix.alpha)
        side = min(longest, max(multiple, round(drawn / multiple) * multiple))
        return side, side
    return asked
