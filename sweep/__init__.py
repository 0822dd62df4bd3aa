"""Sweep framework for AR + DiT generation: decides what to run, runs it, and judges the result.

Imports nothing heavy, so that `python -m sweep --help` stays fast.
"""

__version__ = "0.2.0"
