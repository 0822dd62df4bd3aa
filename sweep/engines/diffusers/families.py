"""What the diffusers engine has code for: model families and features. Names only: read while planning."""

FAMILIES = ("glm_image", "qwen_image", "qwen_image_edit")
"""Families that `adapters.py` has an adapter for."""

PROMPT_TOKENS = {"qwen_image": 1024}
"""Families whose pipeline silently cuts a prompt after this many tokens. Qwen-Image-Edit's reads all of it."""

ONE_AT_A_TIME = ("QwenImageEditPlusPipeline",)
"""Pipelines that take several pictures for one prompt, and one request at a time: of Qwen-Image-Edit since 2509."""

FORWARD_FEATURES = {
    "lora": "lora",
    "prompt_embed_cache": "prompt_embed_cache",
    "teacache": "teacache",
    "cache_dit": "cache_dit",
    "ulysses": "context_parallel",
    "ring": "context_parallel",
    "tp": "tensor_parallel",
}
"""Features that are applied to the pipeline of each rank, in this order: the module of each."""

REFINING = {"scm": "cache_dit", "taylorseer": "cache_dit"}
"""Features that change how another one works: whose module takes their arguments too."""

FEATURES = frozenset({"cfg_parallel", *FORWARD_FEATURES, *REFINING})
"""Features with a module of their own. The file of any other names a method call on the pipeline (`method_call.py`)."""
