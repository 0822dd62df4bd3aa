"""LoRA in requests: vLLM-Omni keeps an adapter active only while requests name it.

`lora_path` as an option loads and activates the adapter at start, and the first request that names none deactivates it.
vllm_omni is imported only inside functions.
"""

import importlib
from collections.abc import Mapping
from typing import Any


def name_adapter(parameters: Any, arguments: Mapping[str, Any]) -> None:
    """Name the adapter of the engine's options, if there is one, in the diffusion sampling parameters of a request."""
    path = arguments.get("lora_path")
    if path is None:
        return
    number = importlib.import_module("vllm_omni.lora.utils").stable_lora_int_id(path)  # as at start, so loaded once
    request = importlib.import_module("vllm_omni.lora.request").LoRARequest
    parameters.lora_request = request(lora_name="sweep", lora_int_id=number, lora_path=path)
    parameters.lora_scale = float(arguments.get("lora_scale", 1.0))
