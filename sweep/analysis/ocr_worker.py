"""Text in pictures: `python -m sweep.analysis.ocr_worker`, image files as a JSON list on standard input.

Prints a JSON list for each file in turn, the lines of text that are read in it from top to bottom; null for a file that
is no image. RapidOCR's models come with its package; nothing is downloaded. Runs as its own process, because it imports
onnxruntime.
"""

import json
import sys
from collections.abc import Iterator, Sequence


def read(files: Sequence[str]) -> Iterator[list[str] | None]:
    """The lines of each file. Raises ImportError without the extra `ocr`."""
    import numpy as np
    from PIL import Image
    from rapidocr import RapidOCR

    engine = RapidOCR(params={"Global.log_level": "error"})
    for file in files:
        try:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB"))[..., ::-1]  # it takes BGR
        except (OSError, ValueError):
            yield None
            continue
        yield list(engine(pixels, use_cls=False).txts or ())


if __name__ == "__main__":
    for lines in read(json.load(sys.stdin)):
        print(json.dumps(lines), flush=True)
