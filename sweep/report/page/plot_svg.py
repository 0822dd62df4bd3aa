"""Plots as SVG inside the page: their colours follow the page's colour scheme, and their ids are the page's own.

Takes files that matplotlib wrote. Only shapes, texts and embedded bitmaps are kept, so that a file can bring neither
scripts, styles for the rest of the page, nor links. Every colour becomes a CSS variable with two values: on a dark page
it has the same hue, and stands out from the background about as much as it did from white. Knows nothing about what is
drawn.
"""

import functools
import html
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from sweep.report.page.oklab import contrast, from_oklab, to_oklab

KEPT = frozenset(("svg", "g", "path", "use", "defs", "clipPath", "pattern", "rect", "circle", "image", "text", "tspan"))
DROPPED = ("width", "height", "version", "preserveAspectRatio")
"""Attributes of the outermost element: the page gives plots their size."""

COLOURED = ("fill", "stroke")
LOCAL = re.compile(r"url\(#([^)]+)\)")
COLOUR = re.compile("#[0-9a-f]{6}")
BLACK = "#000000"  # what has no colour of its own is black
WHITE, DARK_WHITE, DARK_BLACK = "#ffffff", "#181c21", "#eceef1"
"""What white and black are on a dark page: its background, and a soft white."""

VIVID, LEAST = 0.1, 2.2
"""A colour this far from grey (OKLab) keeps this contrast: yellow shows on white by its hue, but is mud on black."""


@dataclass(frozen=True)
class Inline:
    """One plot as an element of the page, and the colours that it refers to as `#rrggbb`."""

    markup: str
    colours: frozenset[str]


def inline(path: Path, prefix: str, label: str) -> Inline | None:
    """The SVG file with `prefix` before its ids; None if it cannot be read. `label` says what it shows."""
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (OSError, ElementTree.ParseError):
        return None
    if _name(root.tag) != "svg":
        return None
    colours = {BLACK}
    attributes = {
        "role": "img",
        "aria-label": label,
        "style": f"fill: {variable(BLACK)}",
        **{name: value for name, value in _attributes(root, prefix, colours) if name not in DROPPED},
    }
    parts = [*_start("svg", attributes), *_children(root, prefix, colours), "</svg>"]
    return Inline("".join(parts), frozenset(colours))


def variable(colour: str) -> str:
    """How a style refers to a colour: `var(--p0173b2)`."""
    return f"var(--p{colour[1:]})"


def variables(colours: Iterable[str]) -> str:
    """The style that gives each colour its two values; "" without colours."""
    found = sorted(set(colours))
    if not found:
        return ""
    light = "".join(f"--p{colour[1:]}:{colour};" for colour in found)
    dark = "".join(f"--p{colour[1:]}:{dark_of(colour)};" for colour in found)
    return f":root{{{light}}}@media (prefers-color-scheme: dark){{:root{{{dark}}}}}"


@functools.cache
def dark_of(colour: str) -> str:
    """The colour on a dark page: same hue; black has the contrast of its text, white none, the others in between."""
    scale = math.log(contrast(DARK_BLACK, DARK_WHITE)) / math.log(contrast(BLACK, WHITE))
    wanted = contrast(colour, WHITE) ** scale
    _, a, b = to_oklab(colour)
    if math.hypot(a, b) > VIVID:
        wanted = max(wanted, LEAST)
    low, high = to_oklab(DARK_WHITE)[0], to_oklab(DARK_BLACK)[0]
    if wanted <= 1:
        return DARK_WHITE
    for _ in range(12):
        middle = (low + high) / 2
        enough = contrast(from_oklab((middle, a, b)), DARK_WHITE) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return from_oklab((high, a, b))


def _children(parent: ElementTree.Element, prefix: str, colours: set[str]) -> Iterator[str]:
    for element in parent:
        name = _name(element.tag)
        if name not in KEPT:
            continue
        yield from _start(name, dict(_attributes(element, prefix, colours)))
        if name in ("text", "tspan") and element.text:
            yield html.escape(element.text)
        yield from _children(element, prefix, colours)
        yield f"</{name}>"
        if name == "tspan" and element.tail:
            yield html.escape(element.tail)


def _start(name: str, attributes: Mapping[str, str]) -> Iterator[str]:
    yield f"<{name}"
    yield from (f' {key}="{html.escape(value)}"' for key, value in attributes.items())
    yield ">"


def _attributes(element: ElementTree.Element, prefix: str, colours: set[str]) -> Iterator[tuple[str, str]]:
    """Attributes with local references only, ids renamed, white space shortened and colours as variables."""
    for key, value in element.attrib.items():
        name = _name(key)
        if name == "id":
            yield name, prefix + value
        elif name == "href":
            if value.startswith("#"):
                yield name, f"#{prefix}{value[1:]}"
            elif value.startswith("data:image/"):
                yield name, "".join(value.split())
        elif name == "style":
            yield name, _style(value, prefix, colours)
        elif name in COLOURED:
            yield name, _colour(value, colours)
        elif not name.startswith("on"):
            yield name, _local(" ".join(value.split()), prefix)


def _style(value: str, prefix: str, colours: set[str]) -> str:
    """Declarations of a style; the colours of shapes and texts become variables."""
    found = []
    for declaration in value.split(";"):
        name, _, said = (part.strip() for part in declaration.partition(":"))
        if name:
            said = _colour(said, colours) if name in COLOURED else said
            found.append(f"{name}:{_local(said, prefix)}")
    return ";".join(found)


def _colour(value: str, colours: set[str]) -> str:
    """A colour as its variable, noted in `colours`; anything else unchanged."""
    if not COLOUR.fullmatch(value):
        return value
    colours.add(value)
    return variable(value)


def _local(value: str, prefix: str) -> str:
    """References to other elements renamed; any other reference is left out."""
    renamed = LOCAL.sub(lambda found: f"url(#{prefix}{found[1]})", value)
    return renamed if "url(" not in LOCAL.sub("", value) else ""


def _name(tag: object) -> str:
    """A tag or attribute without its namespace; "" for comments."""
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""
