"""Imported once by the server that engines on a CPU are forked from: torch and the pipelines.

Ranks are forked from it as well. Not for GPUs: these imports may touch CUDA, which cannot be used after a fork.
"""

import contextlib
import os

from sweep.engines.process.forkserver import LOG_VARIABLE, import_all

MODULES = (
    "torch",
    "torch.distributed",
    "diffusers",
    "diffusers.pipelines.glm_image.pipeline_glm_image",
    "diffusers.pipelines.qwenimage.pipeline_qwenimage",
    "sweep.engines.diffusers.engine",
)


def compile_patterns() -> None:
    """The 600 patterns that transformers compiles once per process, when it first loads weights: a third of a load."""
    with contextlib.suppress(Exception):  # it only saves time, and other versions have it elsewhere or in another form
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        get_checkpoint_conversion_mapping("")


if __name__ != "__main__" and os.environ.get(LOG_VARIABLE):
    import_all(MODULES)
    compile_patterns()
