"""Folders of edits: pictures, instructions, masks, and lines of several turns, as edits.jsonl lists them.

All rules for such folders are here, so that a bad one is refused before anything loads. Knows nothing of workloads.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweep.refusals import ConfigError, nearest, require
from sweep.workload.prompt_files import is_text

if TYPE_CHECKING:
    from PIL import Image

LIST = "edits.jsonl"
"""One JSON object a line: image, instruction or turns, and what is optional of OF_LINE."""

OF_TURN = ("instruction", "image", "mask", "negative_prompt")
"""Keys of an object in `turns`. Its images are further ones: the first is what the turn before made of the picture."""

OF_LINE = (*OF_TURN, "turns", "id")
"""`id` is for people."""

SHIPPED = Path(__file__).parent / "world_turns"
"""Edits of the world that the embedded trained model knows: lines of three turns, and single ones of each kind."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class Picture:
    """A file of the folder."""

    file: str  # relative to the folder
    sha256: str


@dataclass(frozen=True)
class EditTurn:
    """One instruction: a request for each seed."""

    line: int  # of edits.jsonl, from 1
    turn: int  # of its line, from 1
    turns: int  # how many the line has
    instruction: str
    pictures: tuple[Picture, ...]  # to edit, the first above all; of a later turn, what is added to the turn before's
    mask: Picture | None = None  # white where the picture may change
    negative_prompt: str | None = None  # None: the workload's

    @property
    def count(self) -> int:
        """Pictures that its request has."""
        return len(self.pictures) + (self.turn > 1)

    @property
    def files(self) -> tuple[Picture, ...]:
        """All that it needs of the folder."""
        return (*self.pictures, *((self.mask,) if self.mask else ()))

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> "EditTurn":
        """Inverse of `dataclasses.asdict`."""
        pictures = tuple(Picture(**one) for one in data["pictures"])
        mask = Picture(**data["mask"]) if data["mask"] else None
        return EditTurn(**{**data, "pictures": pictures, "mask": mask})


def read_edits(name: str) -> list[tuple[EditTurn, ...]]:
    """The lines of `name`/edits.jsonl, each as its turns; equal lines included.

    Every picture is decoded and every mask is of its picture's size. Raises ConfigError with one line for the user.
    """
    reader = _Reader(name)
    texts = reader.text().split("\n")
    lines = [reader.turns(number, line) for number, line in enumerate(texts, start=1) if line.strip()]
    require(bool(lines), f'{reader.asked}: {LIST} is empty; write {{"image": "a.png", "instruction": "…"}} a line')
    return lines


@dataclass
class _Reader:
    name: str
    _seen: dict[str, tuple[Picture, tuple[int, int]]] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        return f"workload.edits={self.name}"

    @property
    def folder(self) -> Path:
        return Path(self.name).expanduser()

    def text(self) -> str:
        """What edits.jsonl holds."""
        path = self.folder / LIST
        try:
            there = f"check the path, which is relative to {Path.cwd()}"
            require(self.folder.exists(), f"{self.asked}: no such folder; {there}")
            require(self.folder.is_dir(), f"{self.asked}: not a folder; give the one that holds {LIST}")
            require(path.is_file(), f"{self.asked}: the folder has no {LIST}, which lists pictures and instructions")
            return path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self.asked}: {LIST} is not UTF-8 text (byte {error.start})") from error
        except (OSError, ValueError, RuntimeError) as error:  # ValueError covers ConfigError and NUL in a path
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{self.asked}: {LIST} cannot be read ({error})") from error

    def turns(self, number: int, line: str) -> tuple[EditTurn, ...]:
        """A line, checked."""
        where = f"{self.asked}, line {number}"
        try:
            data = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{where}: not valid JSON ({error}); write one object a line") from error
        _check_keys(data, OF_LINE, where)
        listed = data.get("turns")
        require(
            listed is None or "instruction" not in data,
            f"{where}: has both an instruction and turns; the instruction is the first of the turns",
        )
        require(
            listed is None or (isinstance(listed, list) and bool(listed)),
            f'{where}: "turns" is not a list of instructions',
        )
        require("image" in data, f'{where}: has no image; write {{"image": "a.png", "instruction": "…"}}')
        own = {key: data[key] for key in ("mask", "negative_prompt") if key in data}
        each = [{"instruction": data.get("instruction")}] if listed is None else listed
        found, size = [], None
        for turn, one in enumerate(each, start=1):
            said = {"instruction": one} if isinstance(one, str) else one
            place = where if listed is None else f"{where}, turn {turn}"
            _check_keys(said, OF_TURN, place)
            said = {**own, **said}
            if turn == 1:
                require("image" not in said or listed is None, f"{place}: its image stands in the line, not in a turn")
                said["image"] = data["image"]
            pictures, sizes = self._pictures(said.get("image"), place, least=turn == 1)
            size = size or sizes[0]
            found.append(self._turn((number, turn, len(each)), said, pictures, size, place))
        return tuple(found)

    def _turn(
        self,
        which: tuple[int, int, int],
        said: Mapping[str, Any],
        pictures: tuple[Picture, ...],
        size: tuple[int, int],
        where: str,
    ) -> EditTurn:
        instruction, negative = said.get("instruction"), said.get("negative_prompt")
        require(isinstance(instruction, str) and bool(instruction.strip()), f"{where}: has no instruction")
        require(negative is None or isinstance(negative, str), f'{where}: "negative_prompt" is not a text')
        require(is_text(str(instruction)) and is_text(negative or ""), f"{where}: not valid Unicode text")
        mask = None
        if said.get("mask") is not None:
            mask, other = self._file(said["mask"], where)
            is_, was = (f"{width}×{height}" for width, height in (other, size))
            require(other == size, f"{where}: mask {mask.file} is {is_} pixels, its picture {was}")
        return EditTurn(*which, str(instruction), pictures, mask, negative)

    def _pictures(self, named: Any, where: str, least: int) -> tuple[tuple[Picture, ...], list[tuple[int, int]]]:
        listed = [] if named is None else named if isinstance(named, list) else [named]
        require(len(listed) >= least, f'{where}: "image" is empty; name a picture of the folder')
        found = [self._file(one, where) for one in listed]
        return tuple(picture for picture, _ in found), [size for _, size in found]

    def _file(self, named: Any, where: str) -> tuple[Picture, tuple[int, int]]:
        """A picture and its size; each file is read once."""
        require(
            isinstance(named, str) and bool(named) and is_text(named) and "\0" not in named,
            f"{where}: {json.dumps(named)[:80]} is no name of a picture",
        )
        if named not in self._seen:
            self._seen[named] = self._read(named, where)
        return self._seen[named]

    def _read(self, named: str, where: str) -> tuple[Picture, tuple[int, int]]:
        path = Path(named)
        try:
            inside = not path.is_absolute() and (self.folder / path).resolve().is_relative_to(self.folder.resolve())
            require(inside, f"{where}: {named} is outside the folder; copy it there")
            require((self.folder / path).is_file(), f"{where}: no picture {named} in the folder")
            require(
                path.suffix.lower() in SUFFIXES,
                f"{where}: {named} is no picture of a known type; use one of {', '.join(SUFFIXES)}",
            )
            data = (self.folder / path).read_bytes()
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{where}: {named} cannot be read ({error})") from error
        require(bool(data), f"{where}: {named} is empty")
        return Picture(named, hashlib.sha256(data).hexdigest()), _decoded(data, f"{where}: {named}").size


def _check_keys(data: Any, known: tuple[str, ...], where: str) -> None:
    require(isinstance(data, dict), f'{where}: not a JSON object; write {{"image": "a.png", "instruction": "…"}}')
    for key in data:
        meant = nearest(key, known) or f"; there are {', '.join(known)}"
        require(key in known, f"{where}: unknown key '{key[:40]}'{meant}")


def _decoded(data: bytes, where: str) -> "Image.Image":
    """A picture whose pixels could be read. Raises ConfigError."""
    import PIL.Image

    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            image.load()
            return image
    except Exception as error:  # PIL raises what its decoders raise, and a warning for a decompression bomb
        raise ConfigError(f"{where} is no picture that can be decoded ({type(error).__name__})") from error
