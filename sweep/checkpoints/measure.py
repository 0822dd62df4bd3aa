"""`python -m sweep.checkpoints.measure DIR`: how much the first DiT block changes from one denoising step to the next.

Caches decide by this. DBCache (cache-dit, vLLM-Omni's `cache_dit`) compares what the first block adds to its
input with what it added at the last step that ran in full; TeaCache compares the modulated input of the first block
with the previous step's, through a polynomial. Runs the whole diffusers pipeline, on a CPU if necessary. The skips are
computed from full steps, so they do not account for the changes that skipping makes to the latents.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# vLLM-Omni's defaults (DiffusionCacheConfig).
RESIDUAL_DIFF_THRESHOLD, MAX_WARMUP_STEPS, MAX_CONTINUOUS_CACHED_STEPS = 0.24, 4, 3
REL_L1_THRESHOLD = 0.2
# Powers 4 to 0, as vLLM-Omni has them for Qwen-Image and Z-Image (diffusion/cache/teacache/config.py).
COEFFICIENTS = (-450.0, 280.0, -45.0, 3.2, -0.02)
PROMPTS = (
    "a red fox asleep on a mossy log, first snow of the year",
    "a bakery window at dawn, warm light on the street",
)


@dataclass
class Trace:
    """What the first block did in each forward of one request; tensors are (batch, tokens, width)."""

    residuals: list[Any] = field(default_factory=list)  # what the block added to the image (or joint) stream
    inputs: list[Any] = field(default_factory=list)  # modulated input of its attention

    def steps(self, count: int) -> "Trace":
        """The first forward of each of `count` steps: the one with the prompt."""
        branches = max(1, len(self.residuals) // count)
        return Trace(self.residuals[::branches][:count], self.inputs[::branches][:count])


def relative_change(before: Any, after: Any) -> float:
    """Mean absolute difference over mean absolute value of `before`, in float32."""
    return float((after.float() - before.float()).abs().mean() / before.float().abs().mean())


def dbcache_skips(steps: int, change: Callable[[int, int], float]) -> list[int]:
    """Steps that DBCache skips with F1B0 and vLLM-Omni's defaults; `change(full, step)` compares two steps."""
    skipped: list[int] = []
    full, run = MAX_WARMUP_STEPS - 1, 0  # last step that ran in full, and how many were skipped since
    for step in range(MAX_WARMUP_STEPS, steps):
        if run < MAX_CONTINUOUS_CACHED_STEPS and change(full, step) < RESIDUAL_DIFF_THRESHOLD:
            skipped.append(step)
            run += 1
        else:
            full, run = step, 0
    return skipped


def teacache_skips(changes: Sequence[float]) -> list[int]:
    """Steps that TeaCache skips; `changes[i]` is the change from step i to step i + 1."""
    skipped: list[int] = []
    total = 0.0
    for step, change in enumerate(changes, start=1):
        total += abs(sum(c * change**power for c, power in zip(COEFFICIENTS, range(4, -1, -1), strict=True)))
        if total < REL_L1_THRESHOLD:
            skipped.append(step)
        else:
            total = 0.0
    return skipped


@contextmanager
def traced(transformer: Any) -> Iterator[Trace]:
    """Record the first block of a DiT of diffusers (Qwen-Image, GLM-Image, Z-Image) while the context is open."""
    trace = Trace()
    block = getattr(transformer, "transformer_blocks", None) or transformer.layers
    block = block[0]
    attention = next(getattr(block, name) for name in ("attn", "attn1", "attention") if hasattr(block, name))
    encoder_first = type(block).__name__.startswith("Qwen")  # order of the two streams that the block returns

    def stream(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]

    def after_block(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if isinstance(output, tuple):
            output = output[1 if encoder_first else 0]
        trace.residuals.append((output.float() - stream(args, kwargs).float()).cpu())

    def before_attention(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        trace.inputs.append(stream(args, kwargs).float().cpu())

    hooks = [
        block.register_forward_hook(after_block, with_kwargs=True),
        attention.register_forward_pre_hook(before_attention, with_kwargs=True),
    ]
    try:
        yield trace
    finally:
        for hook in hooks:
            hook.remove()


def load(folder: Path, dtype: str) -> Any:
    """The checkpoint's diffusers pipeline, on a GPU where there is one."""
    import diffusers
    import torch

    key = "dtype" if tuple(int(n) for n in diffusers.__version__.split(".")[:2]) >= (0, 40) else "torch_dtype"
    kind: dict[str, Any] = {key: getattr(torch, dtype)}
    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(folder), local_files_only=True, **kind)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def generate(pipeline: Any, prompt: str, size: int, steps: int) -> Any:
    """One square image, as an array (height, width, 3) in 0 … 1, with the guidance that users of the model choose."""
    import torch

    guidance: dict[str, Any] = {"guidance_scale": 0.0 if "ZImage" in type(pipeline).__name__ else 1.5}
    if "Qwen" in type(pipeline).__name__:
        guidance = {"true_cfg_scale": 4.0, "negative_prompt": " "}
    if layers := getattr(pipeline.text_encoder.config, "text_encoder_out_layers", None):  # of fewer layers than usual
        guidance["text_encoder_out_layers"] = tuple(layers)
    generator = torch.Generator().manual_seed(0)
    return pipeline(
        prompt=prompt,
        height=size,
        width=size,
        num_inference_steps=steps,
        generator=generator,
        output_type="np",
        **guidance,
    ).images[0]


def report(trace: Trace, pictures: Sequence[Any]) -> str:
    """The table that the docstring of `scaling` quotes."""
    count = len(trace.residuals)
    pairs = [(i, i + 1) for i in range(count - 1)]
    residuals = [relative_change(trace.residuals[a], trace.residuals[b]) for a, b in pairs]
    inputs = [relative_change(trace.inputs[a], trace.inputs[b]) for a, b in pairs]
    cached = dbcache_skips(count, lambda a, b: relative_change(trace.residuals[a], trace.residuals[b]))
    tea = teacache_skips(inputs)
    first, second = pictures
    return "\n".join(
        [
            "residual change  " + " ".join(f"{value:.2f}" for value in residuals),
            "input change     " + " ".join(f"{value:.2f}" for value in inputs),
            f"DBCache skips {len(cached)} of {count}: {cached}",
            f"TeaCache skips {len(tea)} of {count}: {tea}",
            f"images: mean {first.mean():.3f}, std {first.std():.3f}; "
            f"another prompt changes them by {abs(first - second).mean():.3f} on average",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the report for one checkpoint."""
    made = argparse.ArgumentParser(prog="python -m sweep.checkpoints.measure", description=__doc__)
    made.add_argument("folder", type=Path, metavar="DIR")
    made.add_argument("--size", type=int, default=256, help="pixels per side (default 256)")
    made.add_argument("--steps", type=int, default=20)
    made.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    asked = made.parse_args(arguments)
    pipeline = load(asked.folder, asked.dtype)
    with traced(pipeline.transformer) as trace:
        pictures = [generate(pipeline, PROMPTS[0], asked.size, asked.steps)]
    pictures.append(generate(pipeline, PROMPTS[1], asked.size, asked.steps))
    print(report(trace.steps(asked.steps), pictures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
