"""Model families by how vLLM-Omni runs them. Names only: read while planning, and by the engine."""

TWO_STAGES = ("glm_image",)
"""An AR stage before the DiT stage; `stages.py` has their deploy files."""

NOT_STARTED = ("bagel", "hunyuan_image3")
"""Two stages as well, for which `stages.py` has no deploy file."""

NO_EDITS = ("glm_image",)
"""Families that the engine asks for new pictures only. GLM-Image's AR stage writes no preview before an edit, so it
would be asked for more tokens than an edit has (`compute_max_tokens(is_i2i=True)` of vLLM-Omni's
stage_input_processors/glm_image.py); and with transformers 5.17 the source picture's grid seems to get lost."""

BATCHING = ("qwen_image", "flux", "sd3")
"""Families whose pipelines take several requests in one forward (`supports_request_batch`); vLLM-Omni refuses to load
others for more than one request at a time, so a batch of theirs runs one by one."""
