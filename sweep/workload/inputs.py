"""Inputs of a workload: prompts and pictures as they were when the sweep was planned.

Read once, kept in the plan and used by every cell, so that what runs is what was planned, whatever happens to the
files meanwhile. Knows nothing of cells.
"""

import dataclasses
import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweep.config.load import Mix
from sweep.config.model import EDITS, TEXT
from sweep.config.workload import Workload
from sweep.findings import Finding
from sweep.refusals import ConfigError, require
from sweep.workload import edit_files
from sweep.workload.edit_files import EditTurn, Picture
from sweep.workload.prompts import all_prompts, estimate_tokens
from sweep.workload.sharegpt import read_conversations

READ = (
    *("task", "prompt", "prompts", "prompts_column", "prompt_set", "num_prompts", "shipped_prompts"),
    *("input_image", "edits"),
)
"""Fields of Workload that say what is read."""

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class Inputs:
    """What a workload reads from files."""

    prompts: tuple[str, ...]  # distinct, at most as many as Workload.number_of says
    content: str  # hash of prompts and image
    image: str = ""  # absolute path of the image to edit; "" when there is none or when one is generated
    image_sha256: str = ""  # of the file
    output_lens: tuple[int, ...] = ()  # tokens of the reply to each prompt, estimated; () where there are no replies
    notes: tuple[Finding, ...] = ()  # how the prompts differ from what was requested; without a status
    instructions: tuple[str, ...] = ()  # for the edits that a load mixes in
    edits: tuple[EditTurn, ...] = ()  # one a prompt, the turns of a line one after the other; () without a folder
    folder: str = ""  # absolute path of the one that they are in

    @property
    def number(self) -> int:
        """Distinct prompts, or lines of edits, each with all its turns."""
        return len({one.line for one in self.edits}) if self.edits else len(self.prompts)

    @property
    def pictures(self) -> tuple[tuple[str, str], ...]:
        """Path and hash of every file that is edited or masks what is."""
        named = [(self.image, self.image_sha256)] if self.image else []
        named += [(self.path_of(one), one.sha256) for edit in self.edits for one in edit.files]
        return tuple(dict.fromkeys(named))

    @property
    def field(self) -> str:
        """The field of Workload that says where pictures are."""
        return "edits" if self.edits else "input_image"

    def path_of(self, picture: Picture) -> str:
        """Absolute path of a picture in the folder of edits."""
        return str(Path(self.folder) / picture.file)

    @staticmethod
    def from_json(data: dict[str, Any]) -> "Inputs":
        """Inverse of `dataclasses.asdict`."""
        notes = tuple(Finding(**note) for note in data["notes"])
        lists = {name: tuple(data.get(name, ())) for name in ("prompts", "output_lens", "instructions")}  # some are new
        edits = tuple(map(EditTurn.from_json, data.get("edits", ())))
        return Inputs(**{**data, **lists, "notes": notes, "edits": edits})


def with_instructions(inputs: Inputs, mix: Mix) -> Inputs:
    """The same with the instructions of edits that a load mixes in. Raises ConfigError."""
    if not mix.edits:
        return inputs
    asked = all_prompts(Workload(prompts=mix.prompts, prompt_set="world_edits"))
    distinct = tuple(dict.fromkeys(asked))
    digest = hashlib.sha256(inputs.content.encode())
    for text in distinct:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return dataclasses.replace(inputs, content=digest.hexdigest()[:16], instructions=distinct)


def read_inputs(workload: Workload) -> Inputs:
    """Read the files that `workload` names. Raises ConfigError with one line for the user."""
    if random_texts(workload):
        return Inputs((), hashlib.sha256().hexdigest()[:16])
    if workload.reads_edits:
        return _read_edits(workload)
    replies = conversations(workload)
    asked = [question for question, _ in replies] or all_prompts(workload)
    distinct = list(dict.fromkeys(asked))
    prompts = tuple(distinct[: workload.number_of(len(distinct))])
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(prompt.encode("utf-8", "surrogatepass") + b"\0")
    lens = {question: max(1, round(estimate_tokens(reply))) for question, reply in reversed(replies)}
    written = tuple(lens[prompt] for prompt in prompts if lens)
    if written:
        digest.update(str(written).encode())
    image = check_input_image(workload) or ""
    sha256 = ""
    if image:
        data = image_bytes(workload.input_image or image, image)
        digest.update(data)
        sha256 = hashlib.sha256(data).hexdigest()
    notes = tuple(_notes(workload, asked, distinct))
    return Inputs(prompts, digest.hexdigest()[:16], image, sha256, written, notes)


def _read_edits(workload: Workload) -> Inputs:
    """Pictures with their instructions; a prompt is a turn of a line."""
    name = workload.edits if workload.edits is not None else str(edit_files.SHIPPED)
    asked = edit_files.read_edits(name)
    distinct = list({_without_number(line): line for line in reversed(asked)}.values())[::-1]
    chosen = distinct[: workload.number_of(len(distinct))]
    edits = tuple(turn for line in chosen for turn in line)
    digest = hashlib.sha256(repr([_without_number(line) for line in chosen]).encode("utf-8", "surrogatepass"))
    return Inputs(
        tuple(turn.instruction for turn in edits),
        digest.hexdigest()[:16],
        notes=tuple(_notes(workload, asked, distinct)),
        edits=edits,
        folder=str(Path(name).expanduser().resolve()),
    )


def _without_number(line: Sequence[EditTurn]) -> tuple[EditTurn, ...]:
    """What the line requests, without its place in the file and the files' names."""
    return tuple(
        dataclasses.replace(
            turn,
            line=0,
            pictures=tuple(dataclasses.replace(one, file="") for one in turn.pictures),
            mask=turn.mask and dataclasses.replace(turn.mask, file=""),
        )
        for turn in line
    )


def random_texts(workload: Workload) -> bool:
    """Whether prompts are random tokens, which no file holds."""
    return workload.task == TEXT and workload.prompt is None and workload.prompts is None


def conversations(workload: Workload) -> list[tuple[str, str]]:
    """Questions and answers of a ShareGPT file; [] where there is none. Raises ConfigError."""
    named = workload.task == TEXT and workload.prompt is None and workload.prompts_column is None
    return read_conversations(workload.prompts) if named and workload.prompts is not None else []


def check_input_image(workload: Workload) -> str | None:
    """Absolute path of the image to edit; None when there is none or when one is to be generated.

    Checks only name and size, so that it can run before anything heavy is imported. Raises ConfigError.
    """
    if workload.input_image is None:
        return None
    asked = f"workload.input_image={workload.input_image}"
    require(
        workload.task == EDITS,
        f"{asked}: workload.task={workload.task} takes no input image; use workload=image_edit",
    )
    path = Path(workload.input_image).expanduser()
    try:
        require(path.exists(), f"{asked}: no such file; check the path, which is relative to {Path.cwd()}")
        require(path.is_file(), f"{asked}: not a file; give an image file ({', '.join(IMAGE_SUFFIXES)})")
        require(
            path.suffix.lower() in IMAGE_SUFFIXES,
            f"{asked}: unknown image type; use one of {', '.join(IMAGE_SUFFIXES)}",
        )
        require(path.stat().st_size > 0, f"{asked}: the file is empty; give another image")
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{asked}: cannot be read ({error}); check the path and its permissions") from error
    return str(path.resolve())


def image_bytes(name: str, path: str, field: str = "input_image") -> bytes:
    """The file at `path`. Raises ConfigError, in which it has the name that the user gave it."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"workload.{field}={name}: cannot be read ({error.strerror})") from error


class ReadOnce:
    """`read_inputs` for all cells of one plan: each file is read once, so that all cells see the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Inputs] = {}

    def __call__(self, workload: Workload) -> Inputs:
        """What `workload` reads. Raises ConfigError."""
        named = tuple(getattr(workload, name) for name in READ)
        if named not in self._known:
            self._known[named] = read_inputs(workload)
        return self._known[named]


def _notes(workload: Workload, asked: Sequence[Any], distinct: Sequence[Any]) -> list[Finding]:
    """What a user may not expect of prompts or lines of edits; shipped ones that are left out are not mentioned."""
    number = workload.number_of(len(distinct))
    what = "line" if workload.reads_edits else "prompt"
    if workload.edits is not None:
        source = f"workload.edits={workload.edits}"
    elif workload.prompt is not None:
        source = "workload.prompt"
    elif workload.prompts is not None:
        source = f"workload.prompts={workload.prompts}"
    else:
        source = f"workload.prompt_set={workload.prompt_set}"
    notes = []
    if equal := len(asked) - len(distinct):
        text = f"{source}: {equal} of its {len(asked)} {what}s repeat an earlier one and are left out"
        notes.append(Finding("equal_prompts", text))
    if len(distinct) < number:
        has = f"is 1 {what}, which runs" if len(distinct) == 1 else f"has {len(distinct)} {what}s, which run"
        why = (
            f"because workload.num_prompts={number}"
            if workload.num_prompts
            else f"{number} in all (workload.num_prompts=1: one)"
        )
        notes.append(Finding("prompts_repeated", f"{source} {has} again with new seeds, {why}"))
    yours = workload.prompts if workload.edits is None else workload.edits
    if yours is not None and len(distinct) > number:
        text = f"{source} has {len(distinct):,} {what}s; workload.num_prompts={number} takes only the first {number:,}"
        notes.append(Finding("prompts_cut", text))
    texts = ["".join(turn.instruction for turn in one) if workload.reads_edits else one for one in distinct[:number]]
    if strange := sum(any(map(is_control, text)) for text in texts):
        has = f"1 {what} contains" if strange == 1 else f"{strange} {what}s contain"
        notes.append(
            Finding("control_characters", f"{source}: {has} control characters, which reach the model as they are")
        )
    return notes


def is_control(character: str) -> bool:
    """Whether a character moves a terminal's cursor or worse; line breaks and tabs are text."""
    return unicodedata.category(character) == "Cc" and character not in "\n\r\t"
