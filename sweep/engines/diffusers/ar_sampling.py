"""How the AR stage of a pipeline draws its tokens: model.stages.ar.temperature and its sibling options.

The pipeline calls its AR model's `generate` with do_sample=True, and the rest is what its generation_config says.
"""

from collections.abc import Mapping
from typing import Any

from sweep.config.stages import SAMPLING


def apply(encoder: Any, asked: Mapping[str, Any]) -> None:
    """Make `encoder` (an AR model of transformers) draw tokens as configured; only the names in SAMPLING are read."""
    config = encoder.generation_config
    for name in SAMPLING:
        if name in asked:
            setattr(config, name, asked[name])
    if asked.get("temperature") == 0:  # transformers refuses to divide by it
        config.temperature, config.top_k = 1.0, 1


def read_back(encoder: Any, asked: Mapping[str, Any]) -> dict[str, str]:
    """The configured values, as the encoder holds them: `{"ar_top_p": "0.5"}`."""
    config = encoder.generation_config
    found = {name: getattr(config, name, None) for name in SAMPLING if name in asked}
    if asked.get("temperature") == 0 and config.top_k == 1:
        found["temperature"] = 0.0
    return {f"ar_{name}": str(value) for name, value in found.items()}
