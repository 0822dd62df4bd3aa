"""Train the embedded model: `python -m sweep.checkpoints.training OUT`, or make train.

Takes about 18 minutes on one H200. If interrupted, the same command resumes from what OUT/work holds. OUT/model is
the folder that engines load; OUT/scores.json says what it gets right, OUT/work/log.jsonl holds every loss.
"""

import argparse
import dataclasses
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sweep.checkpoints.training.trainer import Recipe

POOL = 400_000  # scenes
EDITS = 100_000
RECIPES = {
    "vision": Recipe("vision", steps=8_000, batch=256, rate=2e-3),
    "ar": Recipe("ar", steps=24_000, batch=128, rate=2e-3, decay=0.02),
    "vae": Recipe("vae", steps=6_000, batch=64, rate=1.5e-3, decay=0.0, average=0.995),
    "dit": Recipe("dit", steps=72_000, batch=512, rate=1.5e-3),
}
SMOKE_POOL = 64  # and as many edits
SMOKE = {name: dataclasses.replace(recipe, steps=9, batch=4, warm_up=1) for name, recipe in RECIPES.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the pool, train the parts (AR in parallel with VAE and DiT), export, score."""
    parser = argparse.ArgumentParser(prog="python -m sweep.checkpoints.training", description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the model and for what it is made from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="", help="cuda or cpu (default: cuda where there is one)")
    parser.add_argument("--processes", type=int, default=14, help="that draw pictures")
    parser.add_argument("--scored", type=int, default=500, help="held-out sentences to score the model with; 0: none")
    parser.add_argument("--smoke", action="store_true", help="three steps of each part on a few pictures: seconds")
    parser.add_argument("--part", choices=("ar", "vae+dit"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.part:
        _train(options, options.part)
        return 0
    began = time.monotonic()
    _import_what_comes_last()
    try:
        _draw(options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if not _train_all(options):
        print("a part failed: see above; the same command goes on from what was saved", file=sys.stderr)
        return 1
    _finish(options, time.monotonic() - began)
    return 0


def _import_what_comes_last() -> None:
    """Fail now, not after training, if a package that only export or scores need is missing."""
    for name in ("diffusers", "transformers", "sweep.engines.diffusers.adapters"):
        importlib.import_module(name)


def _train_all(options: argparse.Namespace) -> bool:
    """Train AR model and VAE + DiT in parallel processes, or here if it is quick; returns whether all were trained."""
    parts = ("ar", "vae+dit")
    if options.smoke:
        for part in parts:
            _train(options, part)
        return True
    flags = ["--seed", str(options.seed), "--device", _device(options)]
    command = [sys.executable, "-m", "sweep.checkpoints.training", str(options.out), *flags]
    running = [subprocess.Popen([*command, "--part", part]) for part in parts]
    try:
        codes = [process.wait() for process in running]
        return not any(codes)
    finally:
        for process in running:
            process.kill()


def _device(options: argparse.Namespace) -> str:
    import torch

    return options.device or ("cuda" if torch.cuda.is_available() else "cpu")


def _draw(options: argparse.Namespace) -> None:
    """Draw the pool unless it exists. Raises ValueError for a folder that holds a different one."""
    from sweep.checkpoints.training import pool, tokenizer

    work = options.out / "work"
    count, edited = (SMOKE_POOL, SMOKE_POOL) if options.smoke else (POOL, EDITS)
    asked = {"scenes": count, "edits": edited, "seed": options.seed}
    if (work / "pool.json").exists():
        there = json.loads((work / "pool.json").read_text(encoding="utf-8"))
        if there != asked:
            raise ValueError(f"{options.out} holds a training of {there}, not of {asked}: choose another folder")
        return
    began = time.monotonic()
    words = tokenizer.build(options.seed, 200 if options.smoke else tokenizer.SENTENCES)
    pool.draw(work, words, count, options.seed, options.processes)
    pool.draw_edits(work / "edits", words, edited, options.seed, options.processes)
    words.save(str(work / "words.json"))
    (work / "pool.json").write_text(json.dumps(asked) + "\n", encoding="utf-8")
    print(f"pool: {count:,} scenes, {edited:,} edits in {time.monotonic() - began:.0f} s", flush=True)


def _train(options: argparse.Namespace, part: str) -> None:
    import torch
    from tokenizers import Tokenizer

    from sweep.checkpoints.training import parts, pool

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    work, recipes = options.out / "work", SMOKE if options.smoke else RECIPES
    drawn, edits, device = pool.load(work), pool.load_edits(work / "edits"), _device(options)
    if part == "ar":
        vocabulary = Tokenizer.from_file(str(work / "words.json")).get_vocab_size()
        if not (work / "vision.pt").exists():
            parts.train_vision(drawn, recipes["vision"], vocabulary, device, options.seed, work)
        parts.train_autoregressive(drawn, edits, recipes["ar"], vocabulary, device, options.seed, work)
        return
    if not (work / "vae.pt").exists():
        parts.train_autoencoder(drawn, recipes["vae"], device, options.seed, work)
    parts.train_denoiser(drawn, edits, recipes["dit"], device, options.seed, work, compiled=device == "cuda")


def _finish(options: argparse.Namespace, seconds: float) -> None:
    from tokenizers import Tokenizer

    from sweep.checkpoints.training import edit_scores, scores
    from sweep.checkpoints.training.export import export

    model = options.out / "model"
    export(options.out / "work", Tokenizer.from_file(str(options.out / "work" / "words.json")), model)
    size = sum(file.stat().st_size for file in model.rglob("*.safetensors"))
    print(f"{model}: {size / 1e6:.1f} MB of weights, trained in {seconds:.0f} s", flush=True)
    count = min(options.scored, 4) if options.smoke else options.scored
    if not count:
        return
    pipeline = scores.load(model, _device(options))
    drawn, steps = [], (1, 2) if options.smoke else (1, 8, 20)
    for one in scores.measure(pipeline, count, steps, (4.0,)):
        print(scores.described(one), flush=True)
        drawn.append(one)
    edited = edit_scores.measure(pipeline, count, steps[-1], 4.0)
    print(edit_scores.described(edited), flush=True)
    found = {"pictures": [dataclasses.asdict(one) for one in drawn], "edits": dataclasses.asdict(edited)}
    (options.out / "scores.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
