"""Hydra composes less often and reads less, and comes to the same configuration."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime, setup_globals
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import Container, OmegaConf

from sweep import composing
from sweep.composing import SETS_MODE, ReadOnce, compose_less
from sweep.config.run import CONF, register
from tests.conftest import to_run


@pytest.fixture(autouse=True)
def as_in_a_command() -> Iterator[None]:
    """Hydra keeps what it knows in singletons; those of this process stay as they were."""
    before = Singleton.get_state()
    register()
    Plugins.instance()
    setup_globals()
    JobRuntime().set("name", "sweep")
    compose_less()
    yield
    Singleton.set_state(before)


def loader_of(folder: Path, repository: type[ConfigRepository]) -> ConfigLoaderImpl:
    loader = ConfigLoaderImpl(create_config_search_path(str(folder)))
    loader.repository = repository(loader.config_search_path)
    return loader


def nodes(node: Any) -> Iterator[tuple[Any, ...]]:
    """All that a configuration is, not only its values: types, flags, and what is not resolved."""
    meta = node._metadata
    kind = (type(node), meta.ref_type, meta.object_type, meta.optional, meta.flags and dict(meta.flags))
    yield node._get_full_key(None), *kind, None if isinstance(node, Container) else node._value()
    if isinstance(node, Container) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
        keys = range(len(node)) if OmegaConf.is_list(node) else list(node)
        for key in keys:
            assert node._get_node(key)._get_parent() is node
            yield from nodes(node._get_node(key))


def composed(loader: ConfigLoaderImpl, *overrides: str) -> list[tuple[Any, ...]]:
    cfg = loader.load_configuration("config", [*overrides], RunMode.RUN)
    found = list(nodes(cfg))
    OmegaConf.set_struct(cfg, False)
    cfg.clear()  # what one composition does to its configuration is nothing to the next
    return found


def by_hydra(folder: Path, *overrides: str) -> list[tuple[Any, ...]]:
    """As Hydra composes, without any of what spares it something."""
    with (
        mock.patch.object(defaults_list, "_create_interpolation_map", composing._choices),
        mock.patch.object(ConfigLoaderImpl, "_compose_config_from_defaults_list", composing._compose),
    ):
        return composed(loader_of(folder, ConfigRepository), *overrides)


CELLS = (
    ("feature=[]",),
    ("feature=[teacache]", "feature.teacache.rel_l1_thresh=0.3"),
    ("feature=[teacache,tp]", "model=tiny_qwen_image", "engine=noop"),
    ("feature=[cache_dit]", "batch=2"),
    ("feature=[teacache]", "load=closed", "workload.steps=3"),
    ("+study=quick", "hydra/launcher=joblib"),
)


def test_every_composition_is_as_if_it_were_the_only_one() -> None:
    shared = loader_of(CONF, ReadOnce)
    for cell in (*CELLS, *CELLS):
        assert composed(shared, *cell) == by_hydra(CONF, *cell)


def test_only_what_differs_is_merged_anew() -> None:
    """The first cell with a feature shows where cells differ: the next merges from there on, an equal one nothing."""
    shared, merges = loader_of(CONF, ReadOnce), []

    def counted(overrides: str) -> int:
        load = ConfigLoaderImpl._load_single_config
        with mock.patch.object(ConfigLoaderImpl, "_load_single_config", autospec=True, side_effect=load) as merged:
            shared.load_configuration("config", [overrides], RunMode.RUN)
        return merged.call_count

    merges = [counted(one) for one in ("feature=[]", "batch=2", "feature=[tp]", "feature=[teacache]", "feature=[tp]")]
    assert merges[0] > 15
    assert merges[1:] == [0, merges[0] + 1, 6, 0]


def test_a_file_that_does_not_fit_is_refused_in_the_words_of_hydra(tmp_path: Path) -> None:
    (tmp_path / "size").mkdir()
    (tmp_path / "config.yaml").write_text("defaults: [run_schema, {size: fits}, _self_]\n")
    (tmp_path / "size" / "fits.yaml").write_text("# @package _global_\nbatch: 2\n")
    (tmp_path / "size" / "other.yaml").write_text("# @package _global_\nbatch: [1, 2]\n")
    loader, said = loader_of(tmp_path, ReadOnce), []
    composed(loader)
    for how in (lambda one: composed(loader, one), lambda one: by_hydra(tmp_path, one)):
        with pytest.raises(ConfigCompositionException, match="In 'size/other': ") as refused:
            how("size=other")
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_a_file_may_be_named_after_what_others_were_chosen(tmp_path: Path) -> None:
    for group, name in (("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")):
        (tmp_path / group).mkdir(exist_ok=True)
        (tmp_path / group / f"{name}.yaml").write_text(f"value: {group}{name}\n")
    (tmp_path / "config.yaml").write_text("defaults: [{a: x}, {b: '${a}'}, _self_]\n")
    loader = loader_of(tmp_path, ReadOnce)
    for chosen in ("x", "y", "x"):
        assert composed(loader, f"a={chosen}") == by_hydra(tmp_path, f"a={chosen}")
        assert loader.load_configuration("config", [f"a={chosen}"], RunMode.RUN).b.value == f"b{chosen}"


def test_a_file_is_read_once_a_command_and_anew_by_the_next(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("batch: 1\n")
    loader = loader_of(tmp_path, ReadOnce)
    first = composed(loader)
    file.write_text("batch: 2\n")
    assert composed(loader) == first
    assert composed(loader_of(tmp_path, ReadOnce)) != first


def test_the_same_name_in_another_place_is_another_file(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 2)):
        (tmp_path / name / "size").mkdir(parents=True)
        (tmp_path / name / "size" / f"{name}.yaml").write_text(f"value: {value}\n")
    (tmp_path / "config.yaml").write_text("defaults: [_self_]\n")
    loader = loader_of(tmp_path, ReadOnce)
    for name, value in (("a", 1), ("b", 2)):
        where = f"hydra.searchpath=[file://{tmp_path}/{name}]"
        assert loader.load_configuration("config", [where, f"+size={name}"], RunMode.RUN).size.value == value


@pytest.mark.parametrize("place", ["override", "file"])
def test_a_sweep_without_the_flag_is_one_where_the_mode_says_so(sweep, tmp_path: Path, place: str) -> None:
    (tmp_path / "mine" / "study").mkdir(parents=True)
    study = "# @package _global_\nhydra: {mode: MULTIRUN}\n"
    (tmp_path / "mine" / "study" / "swept.yaml").write_text(study)
    how = {"override": ["hydra.mode=MULTIRUN"], "file": ["--config-dir", "mine", "+study=swept"]}[place]
    done = sweep("engine=noop", "dry_run=true", "batch=1,2", "aa=0", *how)
    assert (done.code, to_run(done.out)[0]) == (0, 2), done.err


@pytest.mark.parametrize(
    ("text", "sets"),
    [
        (b"hydra:\n  mode: MULTIRUN\n", True),
        (b"hydra: {'mode' : RUN}\n", True),
        (b"a: 1  # Eager mode: none\n", False),
        (b"model: x\nmodest: y\n", False),
    ],
)
def test_a_file_that_may_set_the_mode_is_noticed(text: bytes, sets: bool) -> None:
    assert bool(SETS_MODE.search(text)) is sets


def test_no_file_of_ours_costs_a_composition() -> None:
    assert not [path for path in CONF.rglob("*.yaml") if SETS_MODE.search(path.read_bytes())]
