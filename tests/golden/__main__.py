"""`python -m tests.golden`: write what test_golden.py compares with. With a folder, write everything there unpacked."""

import sys
import tempfile
from pathlib import Path

from tests.golden import outputs
from tests.golden.test_golden import GOLDEN, compared, pack


def main() -> None:
    """With a folder as argument the texts go there, for `diff -r` between two checkouts."""
    with tempfile.TemporaryDirectory() as scratch:
        found = dict(outputs.all_outputs(Path(scratch)))
    if sys.argv[1:]:
        for name, text in found.items():
            path = Path(sys.argv[1]) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    GOLDEN.write_bytes(pack(compared(found.items())))


if __name__ == "__main__":
    main()
