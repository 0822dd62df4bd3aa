"""The engine that does nothing."""
