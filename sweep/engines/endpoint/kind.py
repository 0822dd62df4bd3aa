"""`endpoint` attaches to a running server: everything is measured, but what the server runs is unknown."""

import os
import urllib.parse
from collections.abc import Sequence

from sweep.config.feature import Feature
from sweep.config.run import RunConfig
from sweep.engines.endpoint.server import servers
from sweep.engines.registry import EngineKind, Preflight
from sweep.refusals import require


def preflight(run: RunConfig, features: Sequence[Feature]) -> Preflight:
    """Check where the server is, and the key that it needs. Raises ConfigError."""
    url, name = run.engine.url, run.engine.api_key_env
    named = servers(url or "")
    require(bool(named), "engine=endpoint needs engine.url=http://HOST:PORT, the server that it attaches to")
    for one in named:
        _check(one)
    require(len(set(named)) == len(named), f"engine.url={url}: names a server twice")
    require(
        run.load.name != "offline", "engine=endpoint measures a server; say how it is used: load=closed or load=open"
    )
    require(
        name is None or bool(os.environ.get(name)),
        f"the environment variable {name}, which engine.api_key_env names, is not set or empty",
    )
    return Preflight()


def _check(url: str) -> None:
    try:
        parts = urllib.parse.urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    require(whole, f"engine.url={url}: not a URL such as http://127.0.0.1:8000")
    require(not parts.username, "engine.url: a key does not belong into a URL; name its variable: engine.api_key_env")


KIND = EngineKind(
    engine="sweep.engines.endpoint.engine:EndpointEngine",
    key_fields=("url", "served_model"),
    preflight=preflight,
    serves=True,
    attaches=True,
)
