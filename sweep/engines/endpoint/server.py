"""Requests to a running server outside its load: which models it has, and whether it accepts our key.

The key is read from the environment where it is sent, and written nowhere.
"""

import dataclasses
import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from sweep.engines.endpoint.bodies import form_of
from sweep.engines.protocol import EngineSpec

ANSWER_S = 60.0  # for requests that cost a server nothing


def headers(spec: EngineSpec) -> dict[str, str]:
    """Headers that carry the server's key in every request; {} without one."""
    key = os.environ.get(spec.api_key_env, "") if spec.api_key_env else ""
    return {"Authorization": f"Bearer {key}"} if key else {}


def servers(url: str) -> list[str]:
    """The servers that `engine.url` names: one, or replicas with spaces between them."""
    return [one.rstrip("/") for one in url.split()]


def model_of(spec: EngineSpec) -> str:
    """What the server calls its model. Raises RuntimeError if no server responds, or none has the requested model.

    Replicas must use the same name; otherwise the error names the one that differs.
    """
    first, *others = [_model_at(dataclasses.replace(spec, url=server)) for server in servers(spec.url)]
    for server, name in zip(servers(spec.url)[1:], others, strict=True):
        if name != first:
            raise RuntimeError(f"{server} serves {name}, not {first!r} as {servers(spec.url)[0]} does")
    return first


def _model_at(spec: EngineSpec) -> str:
    reply = asked(spec, "/v1/models", timeout_s=ANSWER_S)
    names = [str(one.get("id")) for one in reply.get("data", []) if isinstance(one, dict)]
    wanted = spec.served_model
    if wanted and wanted not in names:
        raise RuntimeError(f"{spec.url} serves {', '.join(names) or 'no model'}, not {wanted!r}")
    if not names:
        raise RuntimeError(f"{spec.url} names no model; give it with engine.served_model=NAME")
    return wanted or names[0]


def asked(
    spec: EngineSpec,
    path: str,
    body: Mapping[str, Any] | None = None,
    timeout_s: float | None = None,
    picture: bytes | None = None,
) -> dict[str, Any]:
    """The JSON object that the server returns. With a picture to edit the body is sent as a form.

    With replicas, the first one is queried. Raises RuntimeError, which says what to do.
    """
    url = servers(spec.url)[0] + path
    data, kind = (None if body is None else json.dumps(body).encode()), "application/json"
    if picture is not None:
        data, kind = form_of(body or {}, {"image": picture})
    own = headers(spec) | ({"Content-Type": kind} if data else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, own), timeout=timeout_s) as reply:
            decoded = json.load(reply)
    except urllib.error.HTTPError as error:
        said = " ".join(error.read(400).decode("utf-8", "replace").split())
        key = "; is the key in engine.api_key_env right?" if error.code in (401, 403) else ""
        raise RuntimeError(f"{url} answered {error.code}: {said}{key}") from None
    except urllib.error.URLError as error:
        raise RuntimeError(f"no server answers at {url} ({error.reason}); start it, or mend engine.url") from None
    except (OSError, ValueError) as error:
        raise RuntimeError(f"{url}: the reply cannot be read ({type(error).__name__}: {error})") from None
    return decoded if isinstance(decoded, dict) else {}
