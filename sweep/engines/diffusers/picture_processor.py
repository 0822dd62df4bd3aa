"""Qwen2-VL's processor without its video half, for machines that have no torchvision.

transformers builds a video processor along with it, which needs torchvision, and editing a picture reads no video.
Pillow and NumPy make the patches then. If torchvision is installed, a pipeline loads its own processor.
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

PART = "processor"
"""The processor's folder in the checkpoint, and the keyword of `from_pretrained` that replaces it."""


def replacement(checkpoint: Path) -> dict[str, Any]:
    """The processor as a keyword of `from_pretrained`; {} if the pipeline does not use Qwen2-VL's or can load it."""
    if importlib.util.find_spec("torchvision") is not None:
        return {}
    index = json.loads((checkpoint / "model_index.json").read_text(encoding="utf-8"))
    if index.get(PART) != ["transformers", "Qwen2VLProcessor"]:
        return {}
    from transformers import AutoTokenizer, Qwen2VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    class PictureProcessor(Qwen2VLProcessor):
        """Transformers reads the parts of a processor off the names of these arguments."""

        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
            super().__init__(image_processor, tokenizer, chat_template=chat_template)

    tokenizer = AutoTokenizer.from_pretrained(checkpoint / PART, local_files_only=True)
    return {PART: PictureProcessor(Qwen2VLImageProcessorPil.from_pretrained(checkpoint / PART), tokenizer)}
