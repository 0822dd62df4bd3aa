"""Which pipelines of vLLM-Omni edit several pictures at once, or take a mask. Names only: read while planning."""

from sweep.config.run import RunConfig
from sweep.engines.checkpoint_files import pipeline_of
from sweep.engines.registry import EditInputs

MOST_PICTURES = {"hunyuan_image3": 3, "flux2": None, "flux2_klein": None}
"""Families whose edits take several pictures, and how many; None where no limit is stated. After vLLM-Omni 0.26's
diffusion/model_metadata.py and what its pipelines make of `multi_modal_data["image"]`. One is what Qwen-Image-Edit and
LongCat say, BAGEL's AR stage (`get_supported_mm_limits`), and FLUX.1 Kontext, which takes a list for a batch."""

PICTURES_OF_PIPELINE = {"QwenImageEditPlusPipeline": 4}
"""The same by the pipeline that a checkpoint names, where a family has several: Qwen-Image-Edit since 2509."""

MASKS = ("flux2_klein",)
"""Families whose pipelines read `multi_modal_data["mask_image"]`. The others would silently ignore it."""


def edit_inputs(run: RunConfig) -> EditInputs:
    """By family, and by the pipeline that the checkpoint names."""
    family, path = run.model.family, run.model.path
    most = MOST_PICTURES.get(family, 1)
    return EditInputs(PICTURES_OF_PIPELINE.get(pipeline_of(path), most) if path else most, family in MASKS)
