"""What engines say about a single image."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from sweep.engines.diffusers.decoded_images import DecodedImages
from sweep.engines.images import BLANK, NOT_FINITE, WRONG_SIZE, fault_of
from tests.engines.conftest import make_request

NOISE = np.random.default_rng(0).integers(100, 103, (16, 16, 3), dtype=np.uint8)  # three values: dim, but a picture

SQUARE = make_request(width=16, height=16)


@pytest.mark.parametrize(
    ("image", "fault"),
    [
        (Image.new("RGB", (16, 16)), BLANK),
        (Image.new("RGB", (16, 16), (255, 255, 255)), BLANK),
        (Image.new("RGB", (16, 16), (12, 200, 90)), BLANK),
        (Image.new("L", (16, 16), 7), BLANK),
        (Image.new("RGBA", (16, 16), (1, 2, 3, 4)), BLANK),
        (Image.fromarray(NOISE.clip(101, 102)), BLANK),  # what rounding makes of one value
        (Image.fromarray(NOISE), ""),
        (Image.fromarray(NOISE[..., 0]), ""),
        (Image.fromarray(np.where(np.arange(256).reshape(16, 16) == 9, 255, 0).astype(np.uint8)), ""),  # a star
    ],
)
def test_an_image_of_one_colour_is_blank(image: Image.Image, fault: str) -> None:
    assert fault_of(image, (16, 16)) == fault
    assert fault_of(image, (16, 16), finite=False) == NOT_FINITE


@pytest.mark.parametrize(("width", "height", "fault"), [(16, 16, ""), (16, 32, WRONG_SIZE), (8, 16, WRONG_SIZE)])
def test_an_image_of_another_size_is_no_answer(width: int, height: int, fault: str) -> None:
    assert fault_of(Image.fromarray(NOISE), (width, height)) == fault
    assert fault_of(Image.new("RGB", (16, 16)), (width, height)) == BLANK, "that is graver"


def test_values_are_looked_at_before_they_become_pixels() -> None:
    made = []
    pipe = SimpleNamespace(
        image_processor=SimpleNamespace(postprocess=lambda image, **_: made.append(image) or "images")
    )
    decoded = DecodedImages(pipe)
    values = torch.zeros(3, 3, 4, 4)
    values[1, 2, 0, 0], values[2, 0, 3, 3] = math.nan, -math.inf
    assert pipe.image_processor.postprocess(values, output_type="pil") == "images"
    assert made == [values]
    assert decoded.finite(3) == (True, False, False)
    assert decoded.finite(1) == (True,), "forgotten"
    assert DecodedImages(SimpleNamespace()).finite(2) == (True, True), "a pipeline without an image processor"
