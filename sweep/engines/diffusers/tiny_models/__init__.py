"""The embedded models: tiny, of random weights, built from a seed at first use."""
