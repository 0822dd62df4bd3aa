"""Features of diffusers pipelines, one module each."""
