"""Model families by how vLLM-Omni runs them. Names only: read while planning, and by the engine."""

TWO_STAGES = ("glm_image",)
"""An AR stage before the DiT stage; `stages.py` has their deploy files."""

NOT_STARTED = ("bagel", "hunyuan_image3")
"""Two stages as well, for which `stages.py` has no deploy file."""

BATCHING = ("qwen_image", "flux", "sd3")
"""Families whose pipelines take several requests in one forward (`supports_request_batch`); vLLM-Omni refuses to load
others for more than one request at a time, so a batch of theirs runs one by one."""
