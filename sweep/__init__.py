"""Sweep framework for AR + DiT generation: decides what to run, runs it, and judges the result.

Imports nothing heavy, so that `python -m sweep --help` stays fast. From Python, use `sweep.api`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

__version__ = "0.2.0"

if not TYPE_CHECKING:  # otherwise a missing name would not be an error

    def __getattr__(name: str) -> "ModuleType":
        """`sweep.api` and `sweep.frames` after `import sweep`, imported on first use."""
        if name in ("api", "frames"):
            import importlib

            return importlib.import_module(f"sweep.{name}")
        raise AttributeError(f"module 'sweep' has no attribute {name!r}")
