"""vLLM-Omni through its offline API: diffusion models, and AR → DiT models in stages."""
