"""What switches a feature on in a diffusers pipeline, a module each."""
