"""`python -m sweep.checkpoints MODEL`: the command line, and nothing else."""

import argparse
import sys
import time
from pathlib import Path

from sweep.checkpoints import lora, shipped
from sweep.checkpoints.marker import read_marker
from sweep.checkpoints.recipe import FAMILIES, CheckpointError, Recipe, resolve
from sweep.engines.diffusers.families import FAMILIES as ADAPTED
from sweep.engines.diffusers.tiny_models.checkpoints import BUILDERS, TRAINED, ensure_checkpoint
from sweep.places import cache_folder

PARTS = {"dit": "DiT blocks", "ar": "AR layers", "text": "text encoder layers", "vision": "vision tower layers"}


def main(arguments: list[str] | None = None) -> int:
    """Build the requested checkpoint. Returns 0, or 2 with one line on standard error when it cannot be built."""
    asked = parser().parse_args(arguments)
    depths = {part: getattr(asked, part) for part in PARTS}
    try:
        if asked.model == shipped.NAME:
            return copy_shipped(asked.out)
        if asked.model == lora.NAME:
            return make_adapter(asked.base, asked.out, asked.rank, asked.seed)
        recipe = resolve(asked.model, depths, asked.tiny, asked.seed)
        folder = (asked.out or default_folder(recipe)).expanduser().absolute()
        make(recipe, folder)
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing was left behind", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    models = "\n".join(
        f"  {name:<16} {family.summary}; default depths "
        + ", ".join(f"{part} {count} (real {family.real_layers[part]})" for part, count in family.layers.items())
        for name, family in FAMILIES.items()
    )
    made = argparse.ArgumentParser(
        prog="python -m sweep.checkpoints",
        description="Build a random-weight checkpoint at real widths, for vLLM-Omni and diffusers. "
        "Its images are noise, and cache speed-ups measured on it are not representative.",
        epilog=f"models:\n{models}\n  {shipped.NAME:<16} no random weights: the trained embedded model, for vLLM-Omni"
        f"\n  {lora.NAME:<16} a random LoRA adapter for the DiT of the checkpoint in --base",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("model", choices=(*FAMILIES, shipped.NAME, lora.NAME), metavar="MODEL", help=", ".join(FAMILIES))
    for part, what in PARTS.items():
        names = [f"--{part}-layers"] + (["--layers"] if part == "dit" else [])
        made.add_argument(*names, dest=part, type=int, metavar="N", help=what)
    made.add_argument("--out", type=Path, metavar="DIR", help="folder to create (default: in the cache, $SWEEP_CACHE)")
    made.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the weights (default 0)")
    made.add_argument("--base", type=Path, metavar="DIR", help="of lora: the checkpoint, or an embedded model by name")
    made.add_argument("--rank", type=int, default=16, metavar="N", help="of lora (default 16)")
    made.add_argument("--tiny", action="store_true", help="toy widths, for tests on a CPU")
    return made


def copy_shipped(out: Path | None) -> int:
    """Copy the trained model to where vLLM-Omni can load it."""
    folder = shipped.copy((out or cache_folder() / shipped.NAME).expanduser().absolute())
    print(f"{folder}: the trained embedded model, for text-to-image")
    print(shipped.command(folder))
    return 0


def make_adapter(base: Path | None, out: Path | None, rank: int, seed: int) -> int:
    """Build a random LoRA adapter for a checkpoint."""
    if base is None:
        raise CheckpointError("--base is missing: the folder of the checkpoint that the adapter is for")
    embedded = str(base) in (*TRAINED, *BUILDERS)
    where = ensure_checkpoint(str(base)) if embedded else base.expanduser().resolve()
    folder = lora.build(where, str(base) if embedded else where.name, out, rank, seed)
    print(f"{folder}: a random LoRA adapter of rank {rank}")
    print(f"python -m sweep -m … feature=lora feature.lora.path={folder}")
    return 0


def default_folder(recipe: Recipe) -> Path:
    """Next to the embedded models: in $SWEEP_CACHE, else in the user's cache."""
    return cache_folder() / recipe.name


def make(recipe: Recipe, folder: Path) -> None:
    """Build the checkpoint, then print what is there and how to use it."""
    from sweep.checkpoints.build import build, size_bytes

    started = time.perf_counter()
    built = build(recipe, folder, say=lambda line: print(line, flush=True))
    took = f"built in {time.perf_counter() - started:.1f} s" if built else "already there"
    marker = read_marker(folder) or {}
    counts = marker.get("parameters")
    if isinstance(counts, dict):
        print("parameters: " + ", ".join(f"{part} {count / 1e9:.3f} B" for part, count in counts.items()))
    print(f"{folder}: {size_bytes(folder) / 1e9:.2f} GB, {took}")
    if recipe.tiny and recipe.model in ADAPTED:
        edit = " workload=image_edit" if recipe.family.workload.startswith("image_edit") else ""
        print(f"python -m sweep model={recipe.model} model.path={folder} engine.device=cpu{edit}")
    if recipe.loads_in_vllm_omni:
        family = recipe.family
        print(f"python -m sweep engine=vllm_omni model={recipe.model} model.path={folder} workload={family.workload}")
    elif recipe.family.in_diffusers:
        print(f"for diffusers only: vLLM-Omni ignores {recipe.model}'s DiT config and builds the real model's sizes")
    else:
        print(f"for tests of its files only: vLLM-Omni builds {recipe.model}'s VAE at the real size, whatever it is")


if __name__ == "__main__":
    raise SystemExit(main())
