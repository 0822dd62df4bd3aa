"""Whether pictures show what their prompts ask for, fact by fact, for models that learnt a world whose truth is known.

A fact is a shape, a colour, a place, a count, a word; `sweep.checkpoints.world` reads it from the picture without any
model. The AR stage's image tokens are read in the same way, where the engine kept them. Results are stored in the
cells' quality.json, by picture or tokens and prompt.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.analysis import broken_stage, image_metrics, image_pairs, world_questions
from sweep.analysis.evidence import broken_hand_over
from sweep.analysis.load_metrics import mixed
from sweep.analysis.world_questions import Question
from sweep.checkpoints.world import pictures, token_checks
from sweep.checkpoints.world.checks import Fact
from sweep.checkpoints.world.edit_checks import REST
from sweep.checkpoints.world.shares import wilson
from sweep.config.feature import Feature
from sweep.config.model import TASKS
from sweep.findings import FAIL, WARN, Finding
from sweep.plan.cells import Cell
from sweep.plan.plans import Plan
from sweep.results.folder import SweepFolder
from sweep.results.records import RunResult

if TYPE_CHECKING:
    import numpy as np

OUTSIDE = "outside_world"
"""Code of the note that a model does not know a prompt."""

TURNS = "turn_by_turn"
"""Code of the note that says how pictures fare from turn to turn."""

BREAKS = "breaks_facts"
"""Code of the finding that a feature breaks what the baseline gets right."""


NAMES = {"words": "text", "words_colour": "colour of the text", "length": "length of the text", REST: "what was there"}
"""Names for people of facts whose kind reads differently."""


@dataclass(frozen=True)
class Wrong:
    """A fact that a picture breaks."""

    kind: str  # shape, colour, words, …
    place: str  # top left, bottom, …; "" for the whole picture
    asked: str
    seen: str

    @property
    def text(self) -> str:
        """For people: `top left: shape is ring, not circle`."""
        where = f"{self.place}: " if self.place else ""
        if self.kind == "presence":
            return f"{where}nothing is there"
        if self.kind == "empty":
            return f"{where}{self.seen} is there"
        name = NAMES.get(self.kind, self.kind)
        seen = self.seen or ("unreadable" if self.kind == "words" else "none of the known")
        return f"{where}{name} is {seen}, not {self.asked}"


@dataclass(frozen=True)
class Checked:
    """One picture."""

    facts: int
    wrong: tuple[Wrong, ...]
    drift: float | None = None  # for a later turn, how far what no turn named is from the first source, in [0, 1]


Key = tuple[int, int]
"""prompt_index, seed."""


@dataclass(frozen=True)
class Checks:
    """The pictures of a cell: what could be checked, and how many have a prompt that the model does not know."""

    pictures: Mapping[Key, Checked]
    outside: int = 0
    tokens: Mapping[Key, tuple[Wrong, ...]] = field(default_factory=dict)  # of pictures whose AR tokens are known
    handed_over: bool = True  # whether the DiT stage received the tokens that the AR stage wrote, as far as is known
    turns: Mapping[Key, int] = field(default_factory=dict)  # for edits in several turns, the turn of a picture

    @property
    def exact(self) -> frozenset[Key]:
        """Pictures with every fact right."""
        return frozenset(key for key, one in self.pictures.items() if not one.wrong)

    @property
    def by_turn(self) -> dict[int, list[Checked]]:
        """Checked pictures of each turn; {} where no edit has several."""
        found: dict[int, list[Checked]] = {}
        for key, turn in sorted(self.turns.items(), key=lambda item: item[1]):
            if key in self.pictures:
                found.setdefault(turn, []).append(self.pictures[key])
        return found

    @property
    def said_wrong(self) -> dict[Key, list[str]]:
        """Where the tokens of a picture differ from its prompt; only pictures whose tokens are known."""
        return {key: [wrong.text for wrong in found] for key, found in self.tokens.items()}


def apply_to(cell: Cell) -> bool:
    """Whether the pictures of this cell can be checked: its model learnt the world, and pictures of this kind."""
    wanted = cell.config["model"].get("weights") and cell.config["workload"].get("checks")
    return bool(wanted) and untrained(cell) is None


def untrained(cell: Cell) -> Finding | None:
    """What this cell needs that its model, which learnt the world, was not trained for; None for other models."""
    model, workload = cell.config["model"], cell.config["workload"]
    if not model.get("weights"):
        return None
    nothing = "so what its images show means nothing"
    if mixed(cell):
        return Finding(OUTSIDE, "the pictures of a mix of requests are not checked against their prompts")
    if workload.get("task", TASKS[0]) != TASKS[0] and model["weights"] == "world_1":
        return Finding(OUTSIDE, f"this model has not learnt edits, {nothing}")
    if workload.get("prompt_tokens") is not None:
        return Finding(OUTSIDE, f"this model has not learnt prompts that are cut or lengthened, {nothing}")
    sides = [workload["width"], workload["height"], workload.get("input_width"), workload.get("input_height")]
    if any(side not in (pictures.SIDE, None) for side in sides):
        return Finding(OUTSIDE, f"this model was trained at {pictures.SIDE}×{pictures.SIDE} alone, {nothing}")
    return None


def measure(folder: SweepFolder, plan: Plan, results: Mapping[str, RunResult | None]) -> None:
    """Check all pictures and tokens that were not checked yet and store what is found."""
    tasks = [
        (cell, name, check)
        for cell in plan.cells
        if apply_to(cell) and (result := results.get(cell.key)) is not None
        for name, check in _missing(folder, cell, result)
    ]
    if not tasks:
        return
    found: dict[str, dict[str, Any]] = {}
    try:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            answers = pool.map(lambda task: task[2](), tasks)
            for (cell, name, _), answer in zip(tasks, answers, strict=True):
                if answer is not None:
                    found.setdefault(cell.key, {})[name] = answer
    finally:  # an interrupted run keeps what it has
        image_pairs.save(folder, plan, found)


def of(folder: SweepFolder, cell: Cell, result: RunResult) -> Checks | None:
    """What `measure` found of the first start of a cell; None where its pictures cannot be checked."""
    if not apply_to(cell):
        return None
    stored = image_pairs.stored_images(result)
    if not stored:
        return Checks({})
    made = list(_known(folder, cell, result))
    known = folder.load_quality(cell) if made else {}
    found = {one.key: _checked(known[one.name]) for one in made if one.name in known}
    tokens = {one.key: _checked(known[one.tokens_name]).wrong for one in made if one.tokens_name in known}
    handed_over = all(broken_hand_over(batch.evidence) is None for batch in result.batches)
    turns = {(one.prompt_index, one.seed): one.turn for one in result.requests if one.image and one.turn}
    return Checks(found, len(stored) - len(made), tokens, handed_over, turns)


def columns(mine: Checks) -> dict[str, float | int]:
    """The row's columns, shares in [0, 1]; {} where no picture was checked."""
    count = len(mine.pictures)
    if not count:
        return {}
    facts = sum(one.facts for one in mine.pictures.values())
    wrong = sum(len(one.wrong) for one in mine.pictures.values())
    low, high = wilson(len(mine.exact), count)
    said = [not wrong for wrong in mine.tokens.values()]
    return {
        "pictures_checked": count,
        "exact_rate": len(mine.exact) / count,
        "exact_low": low,
        "exact_high": high,
        "facts_right": 1 - wrong / facts,
        **({"tokens_right": sum(said) / len(said)} if said else {}),
        **_of_last_turn(mine),
    }


def _of_last_turn(mine: Checks) -> dict[str, float]:
    """{} where no edit has several turns."""
    if not mine.by_turn:
        return {}
    last = mine.by_turn[max(mine.by_turn)]
    drifts = [one.drift for one in last if one.drift is not None]
    exact = sum(not one.wrong for one in last) / len(last)
    return {"exact_last_turn": exact, **({"drift": sum(drifts) / len(drifts)} if drifts else {})}


def _turn_notes(mine: Checks) -> list[Finding]:
    """How pictures fare from turn to turn."""
    if len(mine.by_turn) < 2:
        return []
    texts = []
    for turn, each in mine.by_turn.items():
        right = sum(not one.wrong for one in each)
        drifts = [one.drift for one in each if one.drift is not None]
        far = f", drift {sum(drifts) / len(drifts):.4f}" if drifts else ""
        texts.append(f"turn {turn}: {right} of {len(each)} show what was asked{far}")
    return [Finding(TURNS, "; ".join(texts))]


def notes(features: Sequence[Feature], mine: Checks) -> list[Finding]:
    """What a reader should know about the prompts, and about pictures that do not show what their tokens say.

    The latter is only for cells without features: `judge` reports what a feature breaks.
    """
    inexact = set() if features else mine.pictures.keys() - mine.exact
    found = broken_stage.drawn_wrong(inexact, mine.said_wrong, mine.handed_over)
    found += [one for one in broken_stage.judge(mine.said_wrong) if not one.status]
    found += _turn_notes(mine)
    if not mine.outside:
        return found
    whole = mine.outside + len(mine.pictures)
    which = f"{mine.outside} of {whole} prompts are" if whole > 1 else "the prompt is"
    return [
        *found,
        Finding(OUTSIDE, f"{which} outside what this model knows, so what it shows there means nothing"),
    ]


def judge(features: Sequence[Feature], mine: Checks | None, baseline: Checks | None) -> list[Finding]:
    """Pictures that the baseline gets right and a feature breaks, and whether the AR stage's tokens match the prompts.

    Pictures that the feature mends are subtracted: FAIL for several that are more than the gate of its most tolerant
    feature allows, WARN for any. Wrong tokens are FAIL for many pictures, regardless of the baseline's tokens.
    """
    if mine is None:
        return []
    broken = _broken(features, mine, baseline) if features and baseline is not None else []
    return [*broken, *(one for one in broken_stage.judge(mine.said_wrong) if one.status)]


def _broken(features: Sequence[Feature], mine: Checks, baseline: Checks) -> list[Finding]:
    shared = mine.pictures.keys() & baseline.pictures.keys()
    if not shared:
        return []
    broken = sorted((baseline.exact & shared) - mine.exact)
    mended = (mine.exact & shared) - baseline.exact
    lost = len(broken) - len(mended)
    if lost <= 0:
        return []
    allowed = max(feature.gate.fail_broken for feature in features)
    named = [wrong.text for key in broken for wrong in mine.pictures[key].wrong[:1]][: broken_stage.SHOWN]
    more = ", …" if len(broken) > broken_stage.SHOWN else ""
    show = "no longer shows" if lost == 1 else "no longer show"
    share = f"{lost} of {len(shared)} pictures {show} what was asked"
    grave = lost >= broken_stage.FEWEST and lost > allowed * len(shared)
    code, why = broken_stage.cause(broken, mine.said_wrong, mine.handed_over)
    text = f"{share} ({'; '.join(named)}{more})" + (f"; {why}" if why else "")
    return [Finding(code or BREAKS, text, FAIL if grave else WARN)]


@dataclass(frozen=True)
class _Made:
    """A stored image of a request that the model knows."""

    key: Key
    file: str
    digest: str  # of its pixels
    tokens: tuple[int, ...]  # that the AR stage wrote for it; () where they were not kept
    question: Question

    @property
    def name(self) -> str:
        """Key in quality.json of what its picture shows."""
        return f"facts:{self.digest}:{_hash(self.question.text)}"

    @property
    def tokens_name(self) -> str:
        """Key in quality.json of what its tokens say."""
        return f"tokens:{'-'.join(map(str, self.tokens))}:{_hash(f'{token_checks.VERSION} {self.question.text}')}"


def _missing(
    folder: SweepFolder, cell: Cell, result: RunResult
) -> Iterator[tuple[str, Callable[[], dict[str, Any] | None]]]:
    """Names of what quality.json lacks, and functions that find it."""
    known: Mapping[str, Any] | None = None
    for one in _known(folder, cell, result):
        known = folder.load_quality(cell) if known is None else known
        if one.tokens and one.tokens_name not in known:
            yield one.tokens_name, functools.partial(_check_tokens, one.tokens, one.question)
        if one.name not in known:
            try:
                path = folder.image_path(cell, one.file)
            except ValueError:  # outside the folder: `image_pairs` says so
                continue
            yield one.name, functools.partial(_check, path, one.digest, one.question)


def _known(folder: SweepFolder, cell: Cell, result: RunResult) -> Iterator[_Made]:
    """The stored images of requests that the model knows."""
    for request in result.requests:
        if request.image and (question := world_questions.of(folder, cell, result, request)) is not None:
            key = request.prompt_index, request.seed
            yield _Made(key, request.image, request.image_hash, request.image_tokens, question)


def _check(path: Path, digest: str, question: Question) -> dict[str, Any] | None:
    """As quality.json holds it; None for a picture that cannot be read, which others report."""
    try:
        picture = _picture(path, digest)
        drift = question.drift(picture) if question.drift else None
        return _stored(question.facts(picture)) | ({} if drift is None else {"drift": round(drift, 6)})
    except (ValueError, OSError):
        return None


def _check_tokens(tokens: Sequence[int], question: Question) -> dict[str, Any] | None:
    """The same for image tokens; None for a number of tokens that no picture has."""
    try:
        return _stored(token_checks.facts(tokens, question.asked))
    except ValueError:
        return None


def _stored(found: Sequence[Fact]) -> dict[str, Any]:
    wrong = [[fact.kind, fact.place, fact.asked, fact.seen] for fact in found if not fact.right]
    return {"facts": len(found), "wrong": wrong}


def _checked(stored: Mapping[str, Any]) -> Checked:
    """Inverse of `_stored`."""
    return Checked(stored["facts"], tuple(Wrong(*fact) for fact in stored["wrong"]), stored.get("drift"))


def _picture(path: Path, digest: str) -> "np.ndarray":
    """(height, width, 3) in [0, 1]. Raises as `image_metrics.read`."""
    import numpy as np

    image = image_metrics.read(path, digest)
    return np.asarray(image.values, dtype=np.float32) / image_metrics.FULL_SCALE[image.mode]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
