"""`python -m sweep.checkpoints.world DIR`: a folder of edits whose truth is known."""

import argparse
import sys
from pathlib import Path

from sweep.checkpoints.world import edit_folder, pictures


def main(arguments: list[str] | None = None) -> int:
    """Write the folder. Returns 0, or 2 with one line on standard error."""
    asked = parser().parse_args(arguments)
    wrong = ""
    if min(asked.lines, asked.turns) < 1:
        wrong = "--lines and --turns must be at least 1"
    elif asked.turns > 6:
        wrong = "--turns must be at most 6: a scene of the world has no more to change"
    elif asked.side < pictures.SIDE or asked.side % pictures.SIDE or asked.side > 4096:
        wrong = f"--side must be a multiple of {pictures.SIDE}, up to 4096"
    if not wrong:
        try:
            edit_folder.write(asked.folder.expanduser(), asked.lines, asked.turns, asked.side, asked.seed)
        except OSError as error:
            wrong = f"{asked.folder}: {error.strerror}"
    if wrong:
        print(f"error: {wrong}", file=sys.stderr)
        return 2
    print(f"{asked.lines} lines in {asked.folder}; run them with workload=image_edit workload.edits={asked.folder}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="python -m sweep.checkpoints.world",
        description="Write a folder of edits of the world that the embedded model knows: scenes, instructions in "
        "several turns, and the picture that each truly leads to.",
    )
    made.add_argument("folder", type=Path, metavar="DIR", help="folder to create")
    made.add_argument("--lines", type=int, default=12, metavar="N", help="lines of edits.jsonl (default 12)")
    made.add_argument("--turns", type=int, default=3, metavar="N", help="turns of three in four lines (default 3)")
    made.add_argument("--side", type=int, default=64, metavar="PX", help="width and height of pictures (default 64)")
    made.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, other scenes (default 0)")
    return made


if __name__ == "__main__":
    sys.exit(main())
