"""Spares Hydra what it would do again at every composition of the configuration, of which a sweep has one a cell.

Knows how Hydra finds and reads files, not what is in them.
"""

import copy
import pickle
import re
from pathlib import Path
from typing import Any

from hydra._internal import config_loader_impl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.config_source import ConfigResult

from sweep.config import CONF
from sweep.places import machine_conf

OVERRIDES_MODE = re.compile(r"[+~]*hydra(\.mode|\.searchpath)?=")
"""Overrides that may say whether it is a sweep, themselves or through further files."""

SETS_MODE = re.compile(rb"^[^#\n]*\bmode['\"]?\s*:", re.MULTILINE)
"""In a file that may."""

_get_mode = Hydra.get_mode


def compose_less() -> None:
    """Have Hydra read each file once a command, and not compose where that can tell it nothing."""
    config_loader_impl.ConfigRepository = ReadOnce
    Hydra.get_mode = get_mode


class ReadOnce(ConfigRepository):
    """Files and schemas as they were when first asked for. Every composition gets copies, as it changes them."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.read: dict[tuple[str, ...], bytes] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "ReadOnce":
        """For one composition, which may look in further places; what was read is shared."""
        return copy.copy(self)

    def load_config(self, config_path: str) -> ConfigResult | None:
        """As Hydra's own, from memory the second time."""
        place = (config_path, *(f"{source.scheme()}://{source.path}" for source in self.sources))
        if place not in self.read:
            self.read[place] = pickle.dumps(super().load_config(config_path))
        result: ConfigResult | None = pickle.loads(self.read[place])
        return result


def get_mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    """`hydra.mode`, for which Hydra composes the whole configuration, also where no file or override can set it."""
    sources = hydra.config_loader.get_sources()
    places = {source.path for source in sources if source.provider not in ("hydra", "schema")}
    given = any(map(OVERRIDES_MODE.match, overrides))
    files = (path for place in sorted(places) for path in Path(place).rglob("*.yaml"))
    if given or not places <= {str(CONF), str(machine_conf())} or any(map(_may_set_mode, files)):
        return _get_mode(hydra, config_name, overrides)
    return None


def _may_set_mode(path: Path) -> bool:
    try:
        return SETS_MODE.search(path.read_bytes()) is not None
    except OSError:  # one of this machine's that cannot be read
        return False
