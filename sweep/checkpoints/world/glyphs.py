"""The characters that can be written, as small grey pictures.

glyphs.png holds them side by side in the order of scenes.CHARACTERS: Noto Sans CJK SC Regular, drawn once with a bold
stroke, so that every machine writes the same pixels and lines are two pixels wide: thinner ones do not survive the VAE.
The font's licence is next to it (OFL.txt). To draw them again from the font:
python -m sweep.checkpoints.world.glyphs NotoSansCJKsc-Regular.otf
"""

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sweep.checkpoints.world.scenes import CHARACTERS, LATIN

if TYPE_CHECKING:
    import numpy as np

WIDTH, HEIGHT = 14, 16  # pixels of a character at 64×64
FILE = Path(__file__).with_name("glyphs.png")
POINTS = {"latin": 15, "chinese": 13}  # Latin capitals then are as tall as Chinese characters
FINER = 8  # times finer it is drawn, then averaged
STROKE = 3  # of those finer pixels, that each line gains on either side


@functools.cache
def glyphs() -> "np.ndarray":
    """(character, HEIGHT, WIDTH) of ink in [0, 1]."""
    import numpy as np
    from PIL import Image

    with Image.open(FILE) as picture:
        ink = np.asarray(picture, dtype=np.float32) / 255
    return ink.reshape(HEIGHT, len(CHARACTERS), WIDTH).transpose(1, 0, 2)


def draw(font: Path) -> None:
    """Write glyphs.png from the font's file."""
    from PIL import Image, ImageDraw, ImageFont

    whole = Image.new("L", (WIDTH * len(CHARACTERS), HEIGHT))
    for place, character in enumerate(CHARACTERS):
        one = Image.new("L", (WIDTH * FINER, HEIGHT * FINER))
        kind = ImageFont.truetype(str(font), POINTS["latin" if character in LATIN else "chinese"] * FINER)
        left, top, right, bottom = kind.getbbox(character, stroke_width=STROKE)
        where = (one.width - (right - left)) / 2 - left, (one.height - (bottom - top)) / 2 - top
        ImageDraw.Draw(one).text(where, character, font=kind, fill=255, stroke_width=STROKE)
        whole.paste(one.resize((WIDTH, HEIGHT), Image.Resampling.BOX), (place * WIDTH, 0))
    whole.save(FILE, optimize=True)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
