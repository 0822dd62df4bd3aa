"""How features change the work, read from the `predict:` block of their files and merged. Pure.

Adding a feature stays one file: its block is made of the fields of `Effects`. Knows nothing of seconds.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweep.config.feature import Feature
from sweep.refusals import ConfigError, nearest, require

ALL_TO_ALL, RING = "all_to_all", "ring"
MODELS, BLOCKS = "models", "blocks"

_CHOICES = {"exchange": ("", ALL_TO_ALL, RING), "weights_on_host": ("", MODELS, BLOCKS), "dtype": ("", "fp8", "int8")}
_MULTIPLIED = ("branches", "width", "stages")


@dataclass(frozen=True)
class Effects:
    """What the features of a cell do to its work. The defaults are those of the baseline."""

    branches: int = 1  # ranks among which the guidance branches of a step are divided
    tokens: int = 1  # ranks among which the image's tokens are divided
    rings: int = 1  # of these, those that pass keys and values around; the others exchange tokens for heads
    width: int = 1  # ranks among which every product of the DiT is divided
    stages: int = 1  # ranks among which the blocks are divided, one after another
    gathers: bool = False  # ranks hold a part of the weights and gather a block's before it runs
    skip: float = 0.0  # share of the blocks that do not run
    dtype: str = ""  # of the DiT's products and weights: fp8, int8; "" for the model's
    attention: str = ""  # attention back end; "" for the engine's own
    weights_on_host: str = ""  # models: DiT and text encoder take turns; blocks: copied one block ahead
    tiles: bool = False  # the VAE decodes overlapping tiles
    tile_ranks: bool = False  # ... each rank some of them
    slices: bool = False  # the VAE decodes one picture of a batch at a time
    product_kernels: float = 0.0  # further kernels around every product of a block, where blocks are not compiled
    compiled: bool | None = None  # the DiT's blocks are compiled; None: as the engine does

    @property
    def ranks(self) -> int:
        """Devices of the DiT that these divide the work among."""
        return self.branches * self.tokens * self.width * self.stages


_FIELDS = {field.name: field for field in dataclasses.fields(Effects)}
_KEYS = {*_FIELDS, "exchange", "together"} - {"rings"}


_MERGED: dict[tuple[int, ...], tuple[Sequence[Feature], Effects]] = {}
"""By the identities of the features, which are stored with it: the thousands of cells of a sweep share a few sets."""


def merged(features: Sequence[Feature], learnt: Mapping[str, float] | None = None) -> Effects:
    """All effects of a combination. `learnt` has shares of skipped blocks by feature name, or `feature+feature`.

    Raises ConfigError for a feature without a `predict:` block, or with one that has an unknown effect or value.
    """
    if learnt:
        return _merged(features, learnt)
    key = tuple(map(id, features))
    if key not in _MERGED:
        _MERGED[key] = features, _merged(features, {})
    return _MERGED[key][1]


def _merged(features: Sequence[Feature], learnt: Mapping[str, float]) -> Effects:
    found: dict[str, Any] = {}
    names = tuple(feature.name for feature in features)
    runs = 1.0
    for feature in features:
        block = _checked(feature)
        if "skip" in block:
            runs *= 1 - _skip(feature.name, block, names, learnt)
        for key, value in block.items():
            if key in ("skip", "together", "exchange"):
                continue
            if key == "tokens":
                found["tokens"] = found.get("tokens", 1) * value
                if block.get("exchange") == RING:
                    found["rings"] = found.get("rings", 1) * value
            elif key in _MULTIPLIED:
                found[key] = found.get(key, 1) * value
            else:
                found[key] = value
    return Effects(**found, skip=1 - runs)


def _skip(name: str, block: Mapping[str, Any], names: Sequence[str], learnt: Mapping[str, float]) -> float:
    together = block.get("together") or {}
    for other, share in together.items():
        if other in names:
            return learnt.get("+".join(sorted((name, other))), float(share))
    return learnt.get(name, float(block["skip"]))


def _checked(feature: Feature) -> Mapping[str, Any]:
    asked = f"feature.{feature.name}.predict"
    block = feature.predict
    if block is None:
        raise ConfigError(f"{feature.name} cannot be predicted: conf/feature/{feature.name}.yaml has no predict: block")
    require(isinstance(block, Mapping), f"{asked}={block}: must be an object such as {{branches: 2}}")
    for key, value in block.items():
        if key not in _KEYS:
            raise ConfigError(f"{asked}.{key}={value}: no such effect{nearest(key, _KEYS)}")
        if key in _CHOICES:
            known = ", ".join(word for word in _CHOICES[key] if word)
            require(value in _CHOICES[key], f"{asked}.{key}={value}: choose {known}")
        elif key in ("branches", "tokens", "width", "stages"):
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
            require(whole, f"{asked}.{key}={value}: must be a whole number of ranks")
        elif key == "product_kernels":
            require(
                isinstance(value, int | float) and value >= 0, f"{asked}.{key}={value}: must be a number of kernels"
            )
        elif key == "skip":
            number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
            require(number, f"{asked}.skip={value}: must be from 0 to 1, a share of the blocks")
    return block
