"""Command lines that are nearly right: mutated overrides, from a seed, and what each must end with.

`python -m tests.fuzz.overrides 500 7` tries 500 of seed 7, in this process and without running any cell.
"""

import contextlib
import io
import random
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from sweep.config.run import field_names

FIXED = ("engine=noop", "plots=false", "aa=0", "dry_run=true")
"""Given with every command line: nothing runs."""

FEATURES = (
    *("feature.teacache.rel_l1_thresh", "feature.teacache.gpus", "feature.teacache.limits", "feature.teacache.engines"),
    *("feature.teacache.evidence", "feature.teacache.conflicts", "feature.teacache", "feature.tp.rel_l1_thresh"),
    *("feature.teacache.gate.fail_mean_diff", "feature.teacache.families", "feature.teacache.unsupported"),
)
HYDRA = (
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.launcher.n_jobs",
    "hydra/launcher",
    "hydra.sweeper.params",
    "hydra.job",
)
VALUES = (
    *("0", "1", "2", "-1", "1.5", "1e400", "nan", "inf", "-inf", "1000000000", "99999999999999999999", "0x10", "1_0"),
    *(
        "null",
        "true",
        "",
        "''",
        '""',
        "[]",
        "{}",
        "[[]]",
        "[1,[2]]",
        "{a:1}",
        "{a:{b:[1]}}",
        "[null]",
        "???",
        "[a",
        "{",
    ),
    *(
        "1,2",
        "a,b",
        "'a,b'",
        "choice(1,2)",
        "choice()",
        "range(1,3)",
        "range(0,1,0)",
        "interval(0,1)",
        "glob(*)",
        "glob([)",
    ),
    *("sort(3,1)", "shuffle(1,2)", "str(1)", "int(a)", "float(x)", "cast(1)", "nofunction(1)", "tag(a,choice(1,2))"),
    *(
        "teacache",
        "[teacache]",
        "[[teacache]]",
        "teacache,tp",
        "[teacache,cache_dit]",
        "[teacache,teacache]",
        "teacahe",
    ),
    *(
        "tiny_qwen_image",
        "qwen_image",
        "diffusers",
        "noop",
        "x2",
        "image_edit",
        "auto",
        "cpu",
        "~",
        "~/x",
        "a b",
        "a=b",
    ),
    *(
        "一只猫",
        "a\nb",
        "\x1b[31mred",
        "it's",
        'say "hi"',
        "${x}",
        "${oc.env:HOME}",
        "${oc.env:NOPE}",
        "\\${x}",
        "${",
        "}",
    ),
    *("missing.txt", ".", "/dev/null", "/", "a/../b", "x" * 300, "a.csv", "p.txt", "%s", "{0}", "<b>", "[/x]", "[red]"),
)
CORE = (
    *("batch", "seed", "feature", "combine", "aa", "repeat", "model", "workload", "engine.warmup", "workload.steps"),
    *("workload.prompt", "workload.prompts", "workload.num_prompts", "workload.prompts_column", "workload.width"),
    *("workload.guidance_scale", "workload.negative_prompt", "parallel", "hardware.gpus", "precision", "max_repeat"),
)
PLAUSIBLE = (
    *("1", "2", "3", "8", "64", "0.1", "0.5", "true", "false", "null", "auto", "1,2", "1,1", "range(1,3)", "text"),
    *("teacache", "[teacache,tp]", "teacache,[tp,cfg_parallel]", "tiny_qwen_image", "image_edit", "p.txt", "'a, b'"),
)
"""Values that are right for some field, and wrong for others in ways that no grammar finds."""

LINES = ("a fox", "a crow", "a fox", "")


@dataclass(frozen=True)
class Ended:
    """How one command line ended."""

    code: int
    out: str
    err: str


def command_lines(count: int, seed: int) -> Iterator[list[str]]:
    """`count` lists of arguments, the same for the same seed."""
    dice = random.Random(seed)
    for _ in range(count):
        overrides = [_override(dice) for _ in range(dice.choice((1, 1, 1, 2, 3)))]
        sweeps = dice.random() < 0.5
        if dice.random() < 0.3:
            overrides.insert(0, "feature=teacache")
        arguments = [*FIXED, *overrides] if dice.random() < 0.8 else [*overrides, *FIXED]
        for flag in ["-m"] * sweeps + dice.choice((*[[]] * 12, ["--multirn"], ["--cfg"], ["-x=1"])):
            arguments.insert(dice.randrange(len(arguments) + 1), flag)
        yield arguments


def _override(dice: random.Random) -> str:
    names = [name for name in field_names() if name != "dry_run"]
    field = dice.choice(dice.choice((names, names, CORE, CORE, CORE, FEATURES, HYDRA)))
    if dice.random() < 0.15:
        field = _mistyped(dice, field)
    prefix = dice.choice((*[""] * 8, "+", "++", "~"))
    value = dice.choice(dice.choice((VALUES, PLAUSIBLE, PLAUSIBLE)))
    if dice.random() < 0.05:
        return _mistyped(dice, f"{prefix}{field}={value}")
    return f"{prefix}{field}" if prefix == "~" and dice.random() < 0.7 else f"{prefix}{field}={value}"


def _mistyped(dice: random.Random, text: str) -> str:
    """One character lost, doubled or exchanged."""
    place = dice.randrange(len(text))
    return text[:place] + dice.choice(("", text[place] * 2, dice.choice("xX._-=@[{'\"$"))) + text[place + 1 :]


def run(arguments: list[str], limit_s: float = 30.0) -> Ended:
    """`python -m sweep` with these arguments, in this process and in the current folder."""
    from hydra.core.global_hydra import GlobalHydra

    from sweep.cli import main

    def too_long(*_: object) -> None:
        raise TimeoutError(f"no end within {limit_s} s")

    out, err = io.StringIO(), io.StringIO()
    code = 0
    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        with (
            mock.patch.object(sys, "argv", ["sweep", *arguments]),
            mock.patch.dict("os.environ"),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                main()
            except SystemExit as stopped:
                code = stopped.code if isinstance(stopped.code, int) else 1
            except BaseException:
                traceback.print_exc()
                code = 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        GlobalHydra.instance().clear()
    return Ended(code, out.getvalue(), err.getvalue())


def wrong(ended: Ended) -> str:
    """What is wrong with how a command line ended; "" for an exit code of 0, or of 2 with one line."""
    lines = ended.err.splitlines()
    if "Traceback" in ended.err + ended.out:
        return f"a traceback: {lines[-1]}"
    if ended.code not in (0, 2):
        return f"exit code {ended.code}"
    if ended.code == 2 and (len(lines) != 1 or not lines[0].startswith("sweep: ") or len(lines[0]) < 20):
        return f"{len(lines)} lines: {ended.err[:300]!r}"
    return ""


def failures(count: int, seed: int) -> list[str]:
    """Command lines that ended badly, each with what is wrong. Runs in a folder of its own."""
    found = []
    with tempfile.TemporaryDirectory(prefix="sweep-fuzz-") as scratch, contextlib.chdir(scratch):
        Path("p.txt").write_text("\n".join(LINES))
        for arguments in command_lines(count, seed):
            if problem := wrong(run(arguments)):
                found.append(f"{arguments}: {problem}")
    return found


def main() -> None:
    """Print what failed; exit code 1 when something did."""
    count, seed = (int(argument) for argument in (*sys.argv[1:], "500", "0")[:2])
    found = failures(count, seed)
    print("\n".join(found))
    print(f"{count} command lines of seed {seed}, {len(found)} ended badly")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
