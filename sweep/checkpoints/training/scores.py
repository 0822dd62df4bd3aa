"""What a model gets right, of sentences that training never saw, through the pipeline itself.

python -m sweep.checkpoints.training.scores MODEL [--count 500] [--steps 1,2,4,8,20] [--guidance 1,1.5,4] [--json FILE]
    [--plot FILE]
"""

import argparse
import dataclasses
import itertools
import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.checkpoints.world import checks, scenes, sentences
from sweep.checkpoints.world.checks import Fact
from sweep.checkpoints.world.scenes import Asked
from sweep.checkpoints.world.shares import wilson

if TYPE_CHECKING:
    import numpy as np
    import torch

SEED = 4242  # of held-out sentences


@dataclass(frozen=True)
class Score:
    """Shares in [0, 1] over pictures; NaN for what no sentence asks for."""

    steps: int
    guidance: float
    pictures: int
    exact: float  # pictures with every fact right
    facts: float
    english: float  # words of letters and digits that are right as a whole
    chinese: float
    kinds: Mapping[str, float]  # facts by kind


def held_out(count: int, seed: int = SEED) -> list[tuple[str, Asked]]:
    """Sentences that training never saw, and what they ask for."""
    rng = random.Random(seed)
    return [(sentences.write(asked, rng), asked) for asked in itertools.islice(scenes.wishes(seed, held=True), count)]


def measure(
    pipeline: Any, count: int, steps: Sequence[int], guidance: Sequence[float], shuffled: bool = False
) -> Iterator[Score]:
    """A score for each number of steps and guidance, image tokens the same. `shuffled`: of another picture."""
    asked = held_out(count)
    said = [sentence for sentence, _ in asked]
    wishes = [wish for _, wish in asked]
    tokens = image_tokens(pipeline, said)
    for number, scale in itertools.product(steps, guidance):
        drawn = draw(pipeline, said, tokens, number, scale)
        yield score(drawn[1:] + drawn[:1] if shuffled else drawn, wishes, number, scale)


def score(pictures: "Sequence[np.ndarray]", asked: Sequence[Asked], steps: int, guidance: float) -> Score:
    """Check pictures (64·n, 64·n, 3) in [0, 1], drawn like this, against the sentences."""
    kinds: dict[str, list[bool]] = defaultdict(list)
    words: dict[bool, list[bool]] = defaultdict(list)
    exact = []
    for picture, wish in zip(pictures, asked, strict=True):
        found = checks.facts(picture, wish)
        exact.append(all(fact.right for fact in found))
        for fact in found:
            kinds[fact.kind].append(fact.right)
            if fact.kind == "words":
                words[fact.asked[0] in scenes.CHINESE].append(fact.right)
    return Score(
        steps,
        guidance,
        len(exact),
        share(exact),
        share([right for one in kinds.values() for right in one]),
        share(words[False]),
        share(words[True]),
        {kind: share(rights) for kind, rights in sorted(kinds.items())},
    )


def wrong(picture: "np.ndarray", asked: Asked) -> list[Fact]:
    """The facts that a picture breaks."""
    return [fact for fact in checks.facts(picture, asked) if not fact.right]


def share(rights: Sequence[bool]) -> float:
    """Share of true values, in [0, 1]; NaN for an empty sequence."""
    return sum(rights) / len(rights) if rights else float("nan")


def load(folder: Path, device: str) -> Any:
    """The pipeline of an exported folder, in float32."""
    import diffusers
    import torch

    from sweep.engines.diffusers.adapters import quiet_libraries

    quiet_libraries()
    pipeline = diffusers.GlmImagePipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def image_tokens(pipeline: Any, said: Sequence[str], side: int = 64, batch: int = 50, seed: int = 0) -> "torch.Tensor":
    """(N, side² ÷ 256): target tokens that the AR stage samples, as the DiT takes them."""
    import torch

    found = []
    for first in range(0, len(said), batch):
        generator = torch.Generator().manual_seed(seed + first)
        found.append(
            pipeline.generate_prior_tokens(list(said[first : first + batch]), side, side, generator=generator)[0]
        )
    return torch.cat(found)


def draw(
    pipeline: Any,
    said: Sequence[str],
    tokens: "torch.Tensor",
    steps: int,
    guidance: float,
    side: int = 64,
    batch: int = 100,
    seed: int = 100,
) -> "list[np.ndarray]":
    """Pictures of (side, side, 3) in [0, 1] for sentences and their image tokens."""
    import torch

    pictures: list[np.ndarray] = []
    for first in range(0, len(said), batch):
        part = list(said[first : first + batch])
        generators = [torch.Generator().manual_seed(seed + first + place) for place in range(len(part))]
        made = pipeline(
            part,
            height=side,
            width=side,
            num_inference_steps=steps,
            guidance_scale=guidance,
            prior_token_ids=tokens[first : first + batch],
            generator=generators,
            output_type="np",
        )
        pictures += list(made.images)
    return pictures


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each number of steps and guidance."""
    parser = argparse.ArgumentParser(prog="python -m sweep.checkpoints.training.scores", description=__doc__)
    parser.add_argument("model", type=Path, help="folder that training exported")
    parser.add_argument("--count", type=int, default=500, help="held-out sentences")
    parser.add_argument("--steps", default="8", help="comma-separated")
    parser.add_argument("--guidance", default="4", help="comma-separated; 1 switches it off")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shuffled", action="store_true", help="check each sentence against another one's picture")
    parser.add_argument("--json", type=Path, help="also write the scores here")
    parser.add_argument("--plot", type=Path, help="also draw them: exact pictures against steps")
    options = parser.parse_args(arguments)
    steps = [int(one) for one in options.steps.split(",")]
    guidance = [float(one) for one in options.guidance.split(",")]
    found = []
    for one in measure(load(options.model, options.device), options.count, steps, guidance, options.shuffled):
        print(described(one), flush=True)
        found.append(dataclasses.asdict(one))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        draw_scores(found, options.plot)
    return 0


def draw_scores(found: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Exact pictures against steps, a line for each guidance, with Wilson's 95 % intervals."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullLocator

    from profiling.plot_style import LINE_COLOURS, style

    with style():
        figure, axes = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
        for guidance, colour in zip(sorted({one["guidance"] for one in found}), LINE_COLOURS[1:], strict=False):
            rows = sorted((one for one in found if one["guidance"] == guidance), key=lambda one: one["steps"])
            rates = [one["exact"] for one in rows]
            ends = [wilson(round(one["exact"] * one["pictures"]), one["pictures"]) for one in rows]
            reach = [
                [rate - low for rate, (low, _) in zip(rates, ends, strict=True)],
                [high - rate for rate, (_, high) in zip(rates, ends, strict=True)],
            ]
            steps = [one["steps"] for one in rows]
            label = f"guidance {guidance:g}" if guidance > 1 else "no guidance"
            axes.errorbar(steps, rates, yerr=reach, label=label, color=colour, marker="o", markersize=4, capsize=2)
        axes.set_xscale("log")
        ticks = sorted({one["steps"] for one in found})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.set_xlabel("denoising steps")
        axes.set_ylabel("pictures that show\nall that was asked")
        axes.legend(frameon=False)
        figure.savefig(file, dpi=150)
        plt.close(figure)


def described(one: Score) -> str:
    """One line for people."""
    shown = f"{one.exact:.1%} of {one.pictures} pictures exact, {one.facts:.2%} of facts"
    words = f"{one.english:.1%} of English words, {one.chinese:.1%} of Chinese"
    return f"{one.steps} steps, guidance {one.guidance:g}: {shown}, {words}"


if __name__ == "__main__":
    sys.exit(main())
