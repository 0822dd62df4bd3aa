"""Hydra composes less often and reads less, and comes to the same configuration."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.utils import create_config_search_path
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime, setup_globals
from hydra.types import RunMode
from omegaconf import OmegaConf

from sweep.composing import SETS_MODE, ReadOnce
from sweep.config import CONF, register
from tests.conftest import to_run


@pytest.fixture(autouse=True)
def as_in_a_command() -> Iterator[None]:
    """Hydra keeps what it knows in singletons; those of this process stay as they were."""
    before = Singleton.get_state()
    register()
    Plugins.instance()
    setup_globals()
    JobRuntime().set("name", "sweep")
    yield
    Singleton.set_state(before)


def loader_of(folder: Path, repository: type[ConfigRepository]) -> ConfigLoaderImpl:
    loader = ConfigLoaderImpl(create_config_search_path(str(folder)))
    loader.repository = repository(loader.config_search_path)
    return loader


def composed(loader: ConfigLoaderImpl, *overrides: str) -> str:
    cfg = loader.load_configuration("config", [*overrides], RunMode.RUN)
    text = OmegaConf.to_yaml(cfg)
    OmegaConf.set_struct(cfg, False)
    cfg.clear()  # what one composition does to its configuration is nothing to the next
    return text


CELLS = (
    ("feature=[]",),
    ("feature=[teacache]", "feature.teacache.rel_l1_thresh=0.3"),
    ("feature=[teacache,tp]", "model=tiny_qwen_image", "engine=noop"),
    ("+study=quick", "hydra/launcher=joblib"),
)


def test_every_composition_is_as_if_it_were_the_only_one() -> None:
    shared = loader_of(CONF, ReadOnce)
    for cell in (*CELLS, *CELLS):
        assert composed(shared, *cell) == composed(loader_of(CONF, ConfigRepository), *cell)


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
        text = composed(loader, f"hydra.searchpath=[file://{tmp_path}/{name}]", f"+size={name}")
        assert f"value: {value}" in text


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
