"""The embedded models: tiny; one has learnt a small world, the others have random weights."""
