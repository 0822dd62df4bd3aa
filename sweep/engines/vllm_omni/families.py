"""Model families by how vLLM-Omni runs them. Names only: read while planning, and by the engine."""

TWO_STAGES = ("glm_image", "bagel")
"""An AR stage before the DiT stage; `stages.py` and `bagel.py` have their deploy files."""

NOT_STARTED = {
    "hunyuan_image3": "its AR stage writes a text and chooses the picture's size itself (ar2diffusion of vLLM-Omni "
    "0.26), so workload.width and height would have no effect; and no random weights can stand in for the 160 GB, "
    "because its configuration is code that only the real checkpoint has"
}
"""Also two stages, but without a deploy file; and why."""

CONNECTED = ("bagel", "hunyuan_image3")
"""Families whose AR stage hands over its KV cache, which a connector carries. Tokens and prompts of the others go
through vLLM-Omni's orchestrator, and no connector that a deploy file names has a part in it."""

NO_EDITS = {
    "glm_image": "its AR stage supports only text-to-image",
    "bagel": "its AR stage is given no picture here",
}
"""Families for which the engine supports text-to-image only. GLM-Image's AR stage writes no preview before an edit, so
vLLM-Omni would request more tokens than an edit has (`compute_max_tokens(is_i2i=True)` of vLLM-Omni's
stage_input_processors/glm_image.py); and with transformers 5.17 the grid of the input image seems to get lost."""

NOT_SERVED = ("bagel",)
"""Families that are not run under load: their requests would need fields that ours to a server do not have."""

OFF_AT_0 = ("z_image",)
"""Families whose pipelines guide at any value above 0 (`do_classifier_free_guidance`); the others, above 1."""

BATCHING = ("qwen_image", "flux", "sd3")
"""Families whose pipelines take several requests in one forward (`supports_request_batch`); vLLM-Omni refuses to load
the others for more than one request at a time, so it runs the requests of their batches one by one."""

PROMPT_TOKENS = {"qwen_image": 1024, "qwen_image_edit": 1024}
"""Longest prompt of families whose pipelines refuse longer ones (`tokenizer_max_length`), without the template."""


def guidance(family: str, scale: float) -> float:
    """`guidance_scale` for a pipeline of the family, where up to 1 means none."""
    return 0.0 if family in OFF_AT_0 and scale <= 1 else scale
