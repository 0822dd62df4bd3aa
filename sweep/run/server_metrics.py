"""What a server shows at /metrics, in Prometheus' text format, as it was when a load ended. Never raises."""

import contextlib
import urllib.request
from collections.abc import Mapping

TIMEOUT_S = 5.0
MOST = 4 << 20  # bytes that are kept


def scraped(url: str, headers: Mapping[str, str]) -> str:
    """The text; "" where a server has no such page."""
    asked = urllib.request.Request(f"{url}/metrics", headers=dict(headers))
    with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(asked, timeout=TIMEOUT_S) as reply:
        return str(reply.read(MOST).decode("utf-8", "replace"))
    return ""
