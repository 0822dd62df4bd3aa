"""Mutated copies of the recorded cells: `python -m tests.fuzz.cells --count 100 --seed 0`.

Whatever phases.csv, telemetry.csv, requests.csv and result.json contain, `timeline` ends soon, with exit code 0 and
strict JSON, or with one clear line and exit code 2, and writes nothing but its three files. Exit code 1 when one did
not.
"""

import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.traces import asked, attempt, files_of, limited
from tests.recorded import unpack

NAMES = ("phases.csv", "phases.csv", "phases.csv", "telemetry.csv", "requests.csv", "result.json")
WRITTEN = {"timeline.json", "timeline.png", "timeline.svg"}
FIELDS = (
    *("", "0", "-1", "nan", "inf", "1e308", "1e16", "5e-324", "9" * 400, "soon", "2147483648", "0.5", "\ufeff1", "1_0"),
    *("x" * 200_000, "\x1b[31mred", '"', '"a\nb"', "$\\frac", "a,b", "一只猫", "\x00", "\udcff", "request"),
    "stage_transfer",
)
VALUES = (None, [], {}, "", "x\x1b\n", 1e308, -1, float("nan"), True, [[]], [None], {"baseline_s": "x"}, "\ud800")
Random = random.Random


def field(random_: Random, text: str) -> str:
    """Other fields, in some lines or all of a column."""
    lines = text.split("\n")
    column, what = random_.randrange(8), random_.choice(FIELDS)
    step = random_.choice((1, 7, len(lines)))
    for number in range(random_.randrange(min(len(lines), 5)), len(lines), step):
        parts = lines[number].split(",")
        if column < len(parts):
            parts[column] = what
            lines[number] = ",".join(parts)
    return "\n".join(lines)


def lines(random_: Random, text: str) -> str:
    """Fewer lines, other lines, or lines in another order."""
    rows = text.split("\n")
    kind = random_.choice(("drop", "shuffle", "twice", "one", "none", "cut", "blank"))
    if kind == "drop":
        return "\n".join(row for row in rows if random_.random() < 0.7)
    if kind == "shuffle":
        random_.shuffle(rows)
        return "\n".join(rows)
    if kind == "cut":
        return text[: random_.randrange(len(text) + 1)]
    return {"twice": text + text, "one": "\n".join(rows[:2]), "none": rows[0], "blank": "\n\n".join(rows)}[kind]


def ends(random_: Random, text: str) -> str:
    """As another program would write it."""
    return random_.choice(
        ("\ufeff" + text, text.replace("\n", "\r\n"), text.replace("\n", "\r"), text.replace(",", ";"))
    )


def result(random_: Random, text: str) -> str:
    """Other values in result.json."""
    if not text.endswith("}") or random_.random() < 0.2:  # it was changed before
        return random_.choice(("", "[" * 50_000, "{", "null", "[1]", text[: len(text) // 2]))
    found = json.loads(text)
    for name in random_.sample(("first_request_s", "batches", "label", "reason", "device"), 2):
        found[name] = random_.choice(VALUES)
    return json.dumps(found)


IN_TEXT: tuple[Callable[[Random, str], str], ...] = (field, field, field, field, lines, lines, ends)


def mutate(seed: int, folder: Path) -> str:
    """Write the cell of a seed; returns what is wrong with it."""
    random_ = Random(f"cell {seed}")
    base = random_.choice(("int8_b2", "int8_b2", "glm_b4"))
    unpack(base, folder)
    done = [base]
    for _ in range(random_.choice((1, 1, 2, 3))):
        path = folder / random_.choice(NAMES)
        if random_.random() < 0.05 or not path.exists():
            path.unlink(missing_ok=True)
            done.append(f"no {path.name}")
            continue
        text = path.read_text(errors="surrogateescape")
        change = result if path.name == "result.json" else random_.choice(IN_TEXT)
        path.write_text(change(random_, text), errors="surrogatepass", newline="")
        done.append(f"{change.__name__} of {path.name}")
    return "; ".join(done)


def failures(seeds: range) -> list[str]:
    """What is wrong with the answer to each seed's cell, with what was done to it."""
    found = []
    with tempfile.TemporaryDirectory(prefix="sweep-fuzz-") as name:
        for seed in seeds:
            random_, folder = Random(f"command {seed}"), Path(name) / str(seed)
            done = mutate(seed, folder)
            more = random_.choice(
                ([], [], ["--from", "0"], ["--from", "-1e308", "--to", "1e308"], ["--request", "r002"])
            )
            before = files_of(Path(name))
            problem = attempt(["timeline", str(folder), *more])
            new = {path for path, at in files_of(Path(name)).items() if before.get(path) != at and path != folder}
            if {path.name for path in new} not in (set(), WRITTEN):
                problem = problem or f"wrote {new}"
            if new and not problem:
                try:
                    json.loads((folder / "timeline.json").read_text(), parse_constant=refuse)
                except ValueError as error:
                    problem = f"timeline.json: {error}"
            if problem:
                found.append(f"seed {seed}: {done}\n  {' '.join(more)}\n  {problem}")
            shutil.rmtree(folder)
    return found


def refuse(constant: str) -> object:
    """JSON has no NaN and no infinities. Raises ValueError."""
    raise ValueError(constant)


def main() -> int:
    """Try the cells of some seeds; returns the exit code."""
    chosen = asked("tests.fuzz.cells", __doc__ or "", 100)
    limited()
    found = failures(range(chosen.seed, chosen.seed + chosen.count))
    print("\n".join([*found, f"{chosen.count} cells, {len(found)} failures"]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
