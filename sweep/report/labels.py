"""Labels that fit: what many cells share becomes a heading above them, and what is still too long loses its middle.

Pure. Knows texts and widths in terminal columns, no rows and no plans.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

ELLIPSIS = "…"

FEWEST = 2
"""Fewest cells below a heading, on average: fewer need no heading of their own."""


@dataclass(frozen=True)
class Cell:
    """What a heading may say of a cell. `width` and `height` in pixels, "" or 0 for texts."""

    label: str
    model: str = ""
    engine: str = ""
    width: str = ""
    height: str = ""

    @property
    def size(self) -> str:
        """`1024×768`; "" for texts."""
        return f"{self.width}×{self.height}" if self.width not in ("", "0") else ""


@dataclass(frozen=True)
class Name:
    """A cell's name below its heading; the heading is "" if the sweep needs none."""

    heading: str
    label: str


def named(cells: Sequence[Cell]) -> list[Name]:
    """Names of the cells of one sweep: model, engine and size move into headings where the sweep varies them."""
    facts = {"model": [c.model for c in cells], "engine": [c.engine for c in cells], "size": [c.size for c in cells]}
    varied = [name for name, values in facts.items() if len(set(values)) > 1]
    while varied and FEWEST * len({*zip(*(facts[name] for name in varied), strict=True)}) > len(cells):
        varied.pop()
    names = []
    for place, cell in enumerate(cells):
        said = {f"{name}={facts[name][place]}" for name in varied}
        said |= {f"width={cell.width}", f"height={cell.height}"} if "size" in varied else set()
        label = " ".join(word for word in cell.label.split(" ") if word not in said)
        names.append(Name(" · ".join(filter(None, (facts[name][place] for name in varied))), label or cell.label))
    return names


def by_heading(places: Iterable[int], names: Sequence[Name]) -> dict[str, list[int]]:
    """These cells by heading, in the order in which headings appear."""
    found: dict[str, list[int]] = {}
    for place in places:
        found.setdefault(names[place].heading, []).append(place)
    return found


def listed(labels: Iterable[str], names: Mapping[str, Name], most: int | None = None) -> str:
    """`ring b1, b2, tp b1 and 3 more`, each heading before its cells; `most` labels at most."""
    labels = list(labels)
    shown = labels if most is None or len(labels) <= most else labels[:most]
    parts: dict[str, list[str]] = {}
    for label in shown:
        name = names.get(label, Name("", label))
        parts.setdefault(name.heading, []).append(name.label)
    text = "; ".join(f"{heading}: {_batches(of)}" if heading else _batches(of) for heading, of in parts.items())
    return text if shown is labels else f"{text} and {len(labels) - len(shown)} more"


def _batches(labels: Sequence[str]) -> str:
    """`ring b1, b2`: a cell that differs from the one before only in its batch is named by that."""
    said: list[str] = []
    before = None
    for label in labels:
        found = re.fullmatch(r"(.+) (b\d+)", label)
        same = found is not None and found[1] == before
        said.append(found[2] if found and same else label)
        before = found[1] if found else None
    return ", ".join(said)


def shortened(labels: Sequence[str], width: int) -> list[str]:
    """The labels in `width` columns: those too long lose their end, or their middle where that keeps more apart."""
    if all(cell_len(label) <= width for label in labels):
        return [*labels]
    candidates = ([cut(label, width, tail) for label in labels] for tail in range(0, max(width, 1), 3))
    return max(candidates, key=lambda found: len({*found}))


def cut(text: str, width: int, tail: int = 0) -> str:
    """The text in `width` columns; one too long loses all but its start and its last `tail` columns."""
    if cell_len(text) <= width:
        return text
    if width <= 0:
        return ""
    tail = max(0, min(tail, width - 1))
    end = _fitting(text[::-1], tail)[::-1]
    return f"{_fitting(text, width - 1 - cell_len(end))}{ELLIPSIS}{end}"


def _fitting(text: str, width: int) -> str:
    """As much of the start of a text as fits."""
    used = 0
    for place, character in enumerate(text):
        used += cell_len(character)
        if used > width:
            return text[:place]
    return text


def padded(text: str, width: int, right: bool = False) -> str:
    """The text with spaces around it to `width` columns."""
    space = " " * max(0, width - cell_len(text))
    return space + text if right else text + space
