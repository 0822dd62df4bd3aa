"""What a plot is drawn for: file formats, the width of a column, with or without title.

On a sheet with a width every text has one size, which is readable in print. Knows nothing about what is drawn.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

FORMATS = ("png", "svg", "pdf")
NARROWEST, WIDEST = 2.0, 40.0
"""Widths that plots can be drawn at, inches."""

COLUMN = 6.5
"""A sheet narrower than this, in inches, is one column of a page: panels and legends go below each other."""

TALLEST = 9.0
"""Height of a page of paper, inches: more panels than fit on it are left out of a column."""

PRINT_SIZE = 7.0
"""Size of every text on a sheet with a width, points."""

SCREEN_DPI, PRINT_DPI = 150, 300


@dataclass(frozen=True)
class Sheet:
    """`width` in inches, None: as wide as the plot needs. With a width, small print is left to the paper's caption."""

    formats: tuple[str, ...] = ("png", "svg")
    width: float | None = None
    title: bool = True

    @property
    def is_column(self) -> bool:
        return self.width is not None and self.width < COLUMN

    @property
    def dpi(self) -> int:
        return SCREEN_DPI if self.width is None else PRINT_DPI


SCREEN = Sheet()
_current: ContextVar[Sheet] = ContextVar("sheet", default=SCREEN)


def current() -> Sheet:
    """The sheet that is drawn on."""
    return _current.get()


@contextmanager
def drawing_on(sheet: Sheet) -> Iterator[None]:
    """Draw on this sheet inside the block."""
    token = _current.set(sheet)
    try:
        yield
    finally:
        _current.reset(token)


def font(size: float) -> float:
    """`size` in points on a screen, the one size of print on a sheet with a width."""
    return size if current().width is None else PRINT_SIZE


def sizes() -> dict[str, float]:
    """matplotlib's settings for texts without a size of their own; {} on a screen."""
    names = ("font.size", "axes.labelsize", "axes.titlesize", "xtick.labelsize", "ytick.labelsize")
    more = ("legend.fontsize", "legend.title_fontsize", "figure.titlesize", "figure.labelsize")
    return {} if current().width is None else dict.fromkeys((*names, *more), PRINT_SIZE)


def width_or(inches: float) -> float:
    """The width of the sheet; `inches` on a screen."""
    width = current().width
    return inches if width is None else width


def letters(inches: float) -> int:
    """About how many letters of print fit on a line this long."""
    return max(6, int(inches * 72 / (0.56 * PRINT_SIZE)))
