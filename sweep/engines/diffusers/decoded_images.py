"""Whether the VAE's output was finite: an image has integers, in which NaN is black and infinity white.

Keeps the tensor that the pipeline makes images from, and looks at it once the request is over. Knows nothing of images.
"""

from typing import Any

import torch


class DecodedImages:
    """What the pipeline last handed to its image processor: (images, channels, height, width)."""

    def __init__(self, pipe: Any) -> None:
        self._last: torch.Tensor | None = None
        processor = getattr(pipe, "image_processor", None)
        if processor is None:
            return
        postprocess = processor.postprocess

        def kept(image: Any, *args: Any, **kwargs: Any) -> Any:
            self._last = image if isinstance(image, torch.Tensor) else None
            return postprocess(image, *args, **kwargs)

        processor.postprocess = kept

    def finite(self, count: int) -> tuple[bool, ...]:
        """For each of the `count` images of the last request, whether all its values are finite; then forgets them.

        True where the pipeline kept no tensor to look at.
        """
        last, self._last = self._last, None
        if last is None or last.shape[0] != count:
            return (True,) * count
        return tuple(torch.isfinite(last).flatten(1).all(dim=1).tolist())
