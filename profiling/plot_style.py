"""Colours and style of every picture of the project: a phase has the same colour everywhere.

Colour-blind safe. Knows nothing of what is drawn.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREY, LIGHT = "#555555", "#B0B0B0"

PHASE_COLOURS = {
    "request": GREY,
    "text_encode": "#CA9161",
    "image_encode": "#FBAFE4",
    "ar_prefill": "#ECE133",
    "ar_decode": "#DE8F05",
    "denoise_step": "#0173B2",
    "dit_forward": "#56B4E9",
    "vae_decode": "#029E73",
    "stage_transfer": "#CC78BC",
    "other": "#C8C8C8",
}
"""Colour of every phase in `phases.PHASES`, and of the rest of a request."""

LINE_COLOURS = ("#333333", "#D55E00", "#0173B2", "#029E73", "#CC78BC", "#CA9161", "#949494", "#56B4E9")
"""Colours of lines of the same quantity, e.g. one per GPU."""

CHINESE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei", "PingFang SC"),
    *("Microsoft YaHei", "SimHei", "Arial Unicode MS"),
)
"""Fonts for what the default one lacks, if the machine has one of them."""


@contextmanager
def style() -> Iterator[None]:
    """seaborn's white grid, only for what is drawn inside the block; labels are never parsed as math."""
    import matplotlib
    import seaborn
    from matplotlib import font_manager

    extra = {"text.parse_math": False, "svg.hashsalt": "sweep", "axes.edgecolor": LIGHT, "axes.titleweight": "bold"}
    text_as_text = {"svg.fonttype": "none", "pdf.fonttype": 42}  # searchable, and editable in a paper
    size = {"font.size": 10, "axes.labelsize": 10, "xtick.labelsize": 9, "ytick.labelsize": 9.5}
    with matplotlib.rc_context(), seaborn.axes_style("whitegrid"), warnings.catch_warnings():
        # A name in a script that the font lacks shows as boxes; no reason to stop a report.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        installed = {font.name for font in font_manager.fontManager.ttflist}
        further = [name for name in CHINESE_FONTS if name in installed][:1]
        matplotlib.rcParams.update(
            {**extra, **text_as_text, **size, "font.family": [*matplotlib.rcParams["font.family"], *further]}
        )
        yield


def lay_out(figure: "Figure", dpi: int) -> None:
    """Give everything its place once: with a layout engine, `savefig` draws each file twice to find it again."""
    figure.set_dpi(dpi)  # the width of text depends on it
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine(None)
