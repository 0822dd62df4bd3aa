"""Where the AR stage goes wrong: the share of wrong image tokens by their place in the sequence.

python -m sweep.checkpoints.training.token_errors MODEL [--count 200] [--sides 64,96,128] [--json FILE] [--plot FILE]

Only sentences that leave nothing open have one right sequence. Target tokens have a meaning only where four corners
share the grid, so at 96 pixels the preview alone is judged.
"""

import argparse
import itertools
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.checkpoints.training import scores
from sweep.checkpoints.world import codes, scenes, sentences
from sweep.checkpoints.world.scenes import Asked, Scene

if TYPE_CHECKING:
    import numpy as np

SEED = 77  # of the sentences
BIN = 16  # tokens that one point of the plot averages: a row of the preview


def decided(asked: Asked) -> bool:
    """Whether only one scene answers: each thing has its corner, and its size or a texture that has one size alone."""
    return all(group.corner is not None and (group.size or group.texture != "solid") for group in asked.groups)


def examples(count: int, seed: int = SEED) -> list[tuple[str, Scene]]:
    """Held-out sentences that leave nothing open, and the scenes that they ask for."""
    rng = random.Random(seed)
    wishes = (asked for asked in scenes.wishes(seed, held=True) if decided(asked))
    return [(sentences.write(asked, rng), scenes.arrange(asked, rng)) for asked in itertools.islice(wishes, count)]


def error_rates(pipeline: Any, count: int, side: int, batch: int = 50) -> "np.ndarray":
    """Share of wrong tokens in [0, 1] by index: 256 of the preview, then (side ÷ 32)² of the target if that is even."""
    import numpy as np

    grid = side // 32
    asked = examples(count)
    right = np.array([codes.encode(scene, grid) if grid % 2 == 0 else codes.preview(scene) for _, scene in asked])
    written = np.concatenate(list(_written([sentence for sentence, _ in asked], pipeline, side, batch)))
    return np.asarray((written[:, : right.shape[1]] != right).mean(0))


def _written(said: Sequence[str], pipeline: Any, side: int, batch: int) -> "Iterator[np.ndarray]":
    """All image tokens that the AR stage writes for these sentences, batch by batch."""
    import torch

    encoder = pipeline.vision_language_encoder
    generate, kept = encoder.generate, []

    def keeping(**arguments: Any) -> torch.Tensor:
        made = generate(**arguments)
        kept.append(made[:, arguments["input_ids"].shape[1] :])
        return made

    encoder.generate = keeping
    try:
        for first in range(0, len(said), batch):
            generator = torch.Generator().manual_seed(first)
            pipeline.generate_prior_tokens(list(said[first : first + batch]), side, side, generator=generator)
            yield kept.pop().cpu().numpy()
    finally:
        encoder.generate = generate


def draw(rates: "Mapping[int, np.ndarray]", file: Path) -> None:
    """Wrong tokens against their index, a line for each side in pixels."""
    import matplotlib.pyplot as plt

    from profiling.plot_style import GREY, LINE_COLOURS, style

    with style():
        figure, axes = plt.subplots(figsize=(6.2, 3.4), layout="constrained")
        for (side, each), colour in zip(rates.items(), LINE_COLOURS[1:], strict=False):
            starts = range(0, len(each), BIN)
            means = [float(each[start : start + BIN].mean()) for start in starts]
            places = [start + min(BIN, len(each) - start) / 2 for start in starts]
            axes.plot(places, means, marker="o", markersize=3.5, color=colour, label=f"{side} pixels")
        axes.axvline(codes.PREVIEW, color=GREY, linewidth=1, linestyle=":")
        axes.annotate("target →", (codes.PREVIEW, axes.get_ylim()[1]), xytext=(4, -10), textcoords="offset points")
        axes.set_ylim(bottom=-0.02 * axes.get_ylim()[1])
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.set_xlabel(f"index of the image token (means of {BIN})")
        axes.set_ylabel("wrong tokens")
        axes.legend(frameon=False)
        figure.savefig(file, dpi=150)
        plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the shares of preview and target for each side."""
    parser = argparse.ArgumentParser(prog="python -m sweep.checkpoints.training.token_errors", description=__doc__)
    parser.add_argument("model", type=Path, help="folder that training exported")
    parser.add_argument("--count", type=int, default=200, help="held-out sentences that leave nothing open")
    parser.add_argument("--sides", default="64", help="of the picture in pixels, comma-separated multiples of 32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the shares by index here")
    parser.add_argument("--plot", type=Path, help="also draw them")
    options = parser.parse_args(arguments)
    pipeline, rates = scores.load(options.model, options.device), {}
    for side in (int(one) for one in options.sides.split(",")):
        each = rates[side] = error_rates(pipeline, options.count, side)
        preview, target = each[: codes.PREVIEW], each[codes.PREVIEW :]
        quarters = ", ".join(f"{part.mean():.2%}" for part in preview.reshape(4, -1))
        shown = f"preview {preview.mean():.2%} wrong (by quarters {quarters})"
        print(f"{side} px: {shown}" + (f", target {target.mean():.2%}" if len(target) else ""), flush=True)
    if options.json:
        values = {str(side): [float(one) for one in each] for side, each in rates.items()}
        options.json.write_text(json.dumps(values) + "\n", encoding="utf-8")
    if options.plot:
        draw(rates, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
