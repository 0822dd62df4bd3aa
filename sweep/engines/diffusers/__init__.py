"""The diffusers engine: the control group, and what runs the embedded tiny models on any machine."""
