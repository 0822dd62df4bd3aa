"""Model families that the diffusers engine has an adapter for (`adapters.py`). Names only: read while planning."""

FAMILIES = ("glm_image", "qwen_image")
