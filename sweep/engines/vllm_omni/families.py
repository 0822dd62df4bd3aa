"""Model families by how vLLM-Omni runs them. Names only: read while planning, and by the engine."""

TWO_STAGES = ("glm_image",)
"""An AR stage before the DiT stage; `stages.py` has their deploy files."""

NOT_STARTED = ("bagel", "hunyuan_image3")
"""Also two stages, but `stages.py` has no deploy file for them."""

CONNECTED = ("bagel", "hunyuan_image3")
"""Families whose AR stage hands over its KV cache, which a connector carries. Tokens and prompts of the others go
through vLLM-Omni's orchestrator, and no connector that a deploy file names has a part in it."""

NO_EDITS = ("glm_image",)
"""Families for which the engine supports text-to-image only. GLM-Image's AR stage writes no preview before an edit, so
it would be asked for more tokens than an edit has (`compute_max_tokens(is_i2i=True)` of vLLM-Omni's
stage_input_processors/glm_image.py); and with transformers 5.17 the grid of the input image seems to get lost."""

BATCHING = ("qwen_image", "flux", "sd3")
"""Families whose pipelines take several requests in one forward (`supports_request_batch`); vLLM-Omni refuses to load
the others for more than one request at a time, so it runs the requests of their batches one by one."""
