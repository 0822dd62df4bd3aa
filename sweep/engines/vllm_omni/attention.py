"""Attention back ends of vLLM-Omni's DiT that need a separate package. Names only.

Where one is missing, vLLM-Omni fails minutes later (SAGE_ATTN, FLASHINFER_ATTN), or logs a line and runs another back
end.
"""

import importlib.util
from collections.abc import Mapping
from typing import Any

PACKAGES = {
    "SAGE_ATTN": "sageattention",
    "SAGE_ATTN_3": "sageattn3",
    "FLASHINFER_ATTN": "flashinfer",
    "TRTLLM_ATTN": "flashinfer",
    "FLASH_ATTN_HUB": "kernels",
    "FLASH_ATTN_3_HUB": "kernels",
}
"""Back end -> the package that it imports (`platforms/cuda/platform.py`, `diffusion/attention/backends/`)."""


def lacks(arguments: Mapping[str, Any]) -> str:
    """Which package the back end in the options of Omni lacks, in one line; "" for none."""
    backend = str(arguments.get("diffusion_attention_backend") or "").upper()
    package = PACKAGES.get(backend)
    if package is None or importlib.util.find_spec(package) is not None:
        return ""
    return f"attention back end {backend} needs the package {package}, which is not installed here"
