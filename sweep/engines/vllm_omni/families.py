"""Model families by how vLLM-Omni runs them. Names only: read while planning, and by the engine."""

TWO_STAGES = ("glm_image",)
"""An AR stage before the DiT stage; `stages.py` has their deploy files."""

NOT_STARTED = ("bagel", "hunyuan_image3")
"""Also two stages, but `stages.py` has no deploy file for them."""

NO_EDITS = ("glm_image",)
"""Families for which the engine supports text-to-image only. GLM-Image's AR stage writes no preview before an edit, so
it would be asked for more tokens than an edit has (`compute_max_tokens(is_i2i=True)` of vLLM-Omni's
stage_input_processors/glm_image.py); and with transformers 5.17 the grid of the input image seems to get lost."""

BATCHING = ("qwen_image", "flux", "sd3")
"""Families whose pipelines take several requests in one forward (`supports_request_batch`); vLLM-Omni refuses to load
the others for more than one request at a time, so it runs the requests of their batches one by one."""

MOST_PICTURES = {"hunyuan_image3": 3, "flux2": None, "flux2_klein": None}
"""Families whose edits take several pictures, and how many; None where no limit is stated. After vLLM-Omni 0.26's
diffusion/model_metadata.py and what its pipelines make of `multi_modal_data["image"]`. One is what Qwen-Image-Edit and
LongCat say, BAGEL's AR stage (`get_supported_mm_limits`), and FLUX.1 Kontext, which takes a list for a batch."""

PICTURES_OF_PIPELINE = {"QwenImageEditPlusPipeline": 4}
"""The same by the pipeline that a checkpoint names, where a family has several: Qwen-Image-Edit since 2509."""

MASKS = ("flux2_klein",)
"""Families whose pipelines read `multi_modal_data["mask_image"]`. The others would ignore it without a word."""
