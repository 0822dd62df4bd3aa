"""Saves Hydra repeated work: a sweep composes the configuration once for each cell.

Knows how Hydra finds and reads files, not what is in them.
"""

import copy
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import InputDefault, ResultDefault
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from sweep.config.run import CONF
from sweep.places import machine_conf

OVERRIDES_MODE = re.compile(r"[+~]*hydra(\.mode|\.searchpath)?=")
"""Overrides that may decide whether it is a sweep, directly or through further files."""

SETS_MODE = re.compile(rb"^[^#\n]*\bmode['\"]?\s*:", re.MULTILINE)
"""The same in a file."""

KEEPS_NODES = "no_deepcopy_set_nodes"
"""The flag under which Hydra merges."""

File = tuple[str | None, str | None, bool]
"""One file of a composition: its path, the place in the configuration that it goes to, whether it is the main one."""

_get_mode = Hydra.get_mode
_compose = config_loader_impl.ConfigLoaderImpl._compose_config_from_defaults_list
_choices = defaults_list._create_interpolation_map


def compose_less() -> None:
    """Have Hydra read and merge the same files once per command, and skip work that cannot give it anything."""
    config_loader_impl.ConfigRepository = ReadOnce
    config_loader_impl.ConfigLoaderImpl._compose_config_from_defaults_list = merged
    defaults_list._create_interpolation_map = choices
    Hydra.get_mode = get_mode


class ReadOnce(ConfigRepository):
    """Files and schemas as they were first read. Every composition gets copies, because it changes them."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.read: dict[tuple[str, ...], bytes] = {}
        self.merged: dict[tuple[str, ...], Merged] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "ReadOnce":
        """For one composition, which may search further places; what was read is shared."""
        return copy.copy(self)

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Like Hydra's own, but from memory the second time."""
        place = (config_path, *self.places())
        if place not in self.read:
            self.read[place] = pickle.dumps(super().load_config(config_path))
        result: ConfigResult | None = pickle.loads(self.read[place])
        return result

    def places(self) -> tuple[str, ...]:
        """Where files are searched for."""
        return tuple(f"{source.scheme()}://{source.path}" for source in self.sources)


class Merged:
    """Merged configurations of the same places: whole ones, and beginnings that several share. Also copied."""

    def __init__(self) -> None:
        self.whole: dict[tuple[File, ...], bytes] = {}
        self.begun: dict[tuple[File, ...], bytes] = {}

    def longest(self, files: tuple[File, ...]) -> tuple[File, ...]:
        """The longest known beginning of these files."""
        return max((known for known in self.begun if files[: len(known)] == known), key=len, default=())

    def branches(self, files: tuple[File, ...]) -> set[int]:
        """How many files these have in common with each of those that were merged before."""
        return {_common(files, others) for others in self.whole}


def _common(files: tuple[File, ...], others: tuple[File, ...]) -> int:
    pairs = zip(files, others, strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(files), len(others)))


def merged(loader: Any, defaults: Sequence[ResultDefault], repo: Any) -> DictConfig:
    """Like Hydra's own, which merges all files for each cell, though cells differ in few files and mostly in none."""
    if not isinstance(repo.delegate, ReadOnce):
        return _compose(loader, defaults, repo)
    files = tuple((one.config_path, one.package, one.primary) for one in defaults)
    known = repo.delegate.merged.setdefault(repo.delegate.places(), Merged())
    if files not in known.whole:
        begun, branches = known.longest(files), known.branches(files)
        cfg = OmegaConf.create()
        if begun:
            cfg = pickle.loads(known.begun[begun])
            cfg._set_flag(KEEPS_NODES, None)
        try:
            with flag_override(cfg, KEEPS_NODES, True):
                for number, one in enumerate(defaults[len(begun) :], start=len(begun)):
                    if number in branches and number > len(begun):
                        known.begun[files[:number]] = pickle.dumps(cfg)
                    cfg.merge_with(loader._load_single_config(default=one, repo=repo).config)
        except OmegaConfBaseException:
            return _compose(loader, defaults, repo)  # which says what is wrong, and in which file
        _strip_defaults(cfg)
        known.whole[files] = pickle.dumps(cfg)
    made: DictConfig = pickle.loads(known.whole[files])
    return made


def _strip_defaults(cfg: Any) -> None:
    """Remove the lists of merged files. As Hydra does, whose function cannot be called."""
    if not isinstance(cfg, DictConfig) or cfg._is_missing() or cfg._is_none():
        return
    with flag_override(cfg, ["readonly", "struct"], False):
        if cfg._get_flag("HYDRA_REMOVE_TOP_LEVEL_DEFAULTS"):
            cfg._set_flag("HYDRA_REMOVE_TOP_LEVEL_DEFAULTS", None)
            cfg.pop("defaults", None)
    for _, value in cfg.items_ex(resolve=False):
        _strip_defaults(value)


def choices(overrides: Any, defaults: Sequence[InputDefault], self_added: bool) -> DictConfig | None:
    """Values for interpolations in defaults, which take a quarter of a composition even if there are none."""
    if any(one.is_interpolation() for one in defaults):
        return _choices(overrides, defaults, self_added)
    return None


def get_mode(hydra: Hydra, config_name: str | None, overrides: list[str]) -> Any:
    """`hydra.mode`, for which Hydra composes the whole configuration even if no file or override can set it."""
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
