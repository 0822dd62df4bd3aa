"""A feature as its file defines it, without composing a configuration: for sweeps that kept only feature names."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sweep.config.feature import Feature
from sweep.config.run import CONF
from sweep.plan.features import parse_feature
from sweep.refusals import ConfigError, nearest


def feature_named(name: str, engine: str, options: Mapping[str, Any]) -> Feature:
    """The feature of conf/feature/NAME.yaml for `engine`, with other options. Raises ConfigError."""
    return _named(name, engine, tuple(sorted(options.items())))


@lru_cache(maxsize=1024)
def _named(name: str, engine: str, options: tuple[tuple[str, Any], ...]) -> Feature:
    from omegaconf import OmegaConf

    path = CONF / "feature" / f"{name}.yaml"
    if "/" in name or not path.is_file():
        known = sorted(file.stem for file in (CONF / "feature").glob("*.yaml"))
        raise ConfigError(f"feature={name}: no such feature{nearest(name, known)}")
    body = OmegaConf.load(path)
    for key, value in options:
        OmegaConf.update(body, f"{name}.{key}", value)
    # What files refer to outside of themselves.
    whole = OmegaConf.create({"feature": body, "engine": {"name": engine}, "workload": {"steps": 1}})
    resolved: Any = OmegaConf.to_container(whole, resolve=True)
    return parse_feature(name, resolved["feature"][name], engine)
