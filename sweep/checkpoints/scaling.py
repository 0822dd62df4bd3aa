"""Gains that make a random DiT change from step to step as trained ones do, so that caches skip some steps, not all.

Why plain weights of standard deviation 0.02 never let DBCache (`cache_dit`) engage: with zero biases every gate is
a linear function of the timestep embedding alone, and two fifths of its sinusoids turn by more than a radian from
one step to the next. What the first block adds is almost unrelated to what it added one step before: a relative change
of 1.0 at every step, against a threshold of 0.24. TeaCache looks at the modulated input, x (1 + scale) + shift
with both near 0.1. It barely sees the timestep, and skips 12 of 20 steps.

Three changes, at any width and depth: (1) the timestep embedding's fast sinusoids fade out, (2) the modulation's
biases hold the gates open, (3) some hidden units fire near pure noise only, since trained models change most in the
first steps. Text would drown in thousands of image tokens (attention is near uniform), so its keys are longer.

Measured on a CPU with real widths: 256x256, 20 steps, bfloat16, DiT of 2 blocks, `python -m sweep.checkpoints.measure`
(torch 2.13, diffusers 0.40). Relative change per step: first two steps, then the range from the third on.

    checkpoint             residual of block 1        modulated input            skipped of 20     other prompt
                                                                                 DBCache TeaCache  changes pixels by
    Qwen-Image, std 0.02   0.98 0.96, 0.95 to 1.11    0.09 0.10, 0.10 to 0.12     0       12       0.005
    qwen_image             0.30 0.48, 0.11 to 0.23    0.13 0.21, 0.06 to 0.10     9       13       0.060
    z_image                0.14 0.34, 0.12 to 0.45    0.07 0.16, 0.06 to 0.21     5       10       0.018
    glm_image              0.57 0.14, 0.13 to 0.14    0.28 0.08, 0.06 to 0.07     9       12 (a)   0.077

(a) with Qwen-Image's polynomial; vLLM-Omni has no TeaCache for GLM-Image. cache-dit 1.5 itself, with vLLM-Omni's
settings, skipped exactly the steps that are computed here: 9 of 20 in both branches on qwen_image (pixels change by
0.003), none at std 0.02 (bit-identical). Depth: 20 blocks at toy widths give the same figures (qwen_image 8 and 13
skipped, z_image 6 and 10), finite in bfloat16; at 1024x1024 another prompt changes their pixels by 0.035 (qwen_image)
and 0.006 (z_image, which has no guidance and one set of keys for text and picture).
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SMOOTHNESS = 100.0  # timesteps: frequencies of the timestep embedding faster than one radian in this fade out
ONSET_SHARE = 16  # one hidden unit in this many fires near pure noise only
ONSET_PERIODS = (60.0, 100.0)  # timesteps per radian of the two waves that mark pure noise
ONSET_LEVEL = 1.5  # the sum of the two waves above which those units fire: within about 50 timesteps of pure noise
OPEN_GATES = 0.4  # standard deviation of the modulation's biases: gates that are open at every timestep


def timestep_shape(layer: str, noise: float, gain: float, onset: float) -> Callable[[str, "torch.Tensor"], None]:
    """A reshape (see weights.Rules) of the first linear layer behind the sinusoidal timestep embedding.

    Its weight, (hidden, 2 · frequencies), reads cosines, then sines. Fast frequencies fade out, so that the
    layer's output, of variance gain² / 2, is a smooth function of the timestep. A share of the hidden units are
    set to `onset` times two waves that peak at timestep `noise`, less a level: they fire in the first steps only.
    """

    def reshape(name: str, tensor: "torch.Tensor") -> None:
        units = tensor.shape[0] // ONSET_SHARE
        if name == f"{layer}.bias":
            tensor[:units] = -onset * ONSET_LEVEL
        if name != f"{layer}.weight":
            return
        width = tensor.shape[1]
        pace = _frequencies(width // 2)
        fade = [1 / (1 + (f * SMOOTHNESS) ** 2) for f in pace] * 2
        norm = math.sqrt(sum(value**2 for value in fade))
        tensor.mul_(tensor.new_tensor([gain * math.sqrt(width) * value / norm for value in fade]))
        tensor[:units] = 0.0
        for period in ONSET_PERIODS:
            column = min(range(len(pace)), key=lambda i: abs(pace[i] - 1 / period))
            tensor[:units, column] = onset * math.cos(pace[column] * noise)
            tensor[:units, len(pace) + column] = onset * math.sin(pace[column] * noise)

    return reshape


def _frequencies(count: int) -> list[float]:
    """Radians per timestep of diffusers' sinusoidal embedding (`Timesteps` with downscale_freq_shift=0)."""
    return [math.exp(-math.log(10000) * i / count) for i in range(count)]
