"""Hydra sweeper `compat`: plans a sweep as cells and launches one job per engine, not one per cell.

Hydra loads plugins only from a package called `hydra_plugins`, and imports them at every start, so this
module imports nothing heavy. `sweep/plan` decides what the cells are.
"""

import itertools
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class CompatSweeperConf:
    """`hydra.sweeper`: what a study sweeps over."""

    _target_: str = "hydra_plugins.compat_sweeper.CompatSweeper"
    params: dict[str, Any] | None = field(default_factory=dict)  # parameter -> values, as on the command line


ConfigStore.instance().store(group="hydra/sweeper", name="compat", node=CompatSweeperConf, provider="sweep")


class CompatSweeper(Sweeper):
    """Expands the product, adds baselines and A/A runs, checks every cell, and launches groups."""

    def __init__(self, params: dict[str, Any] | None) -> None:
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.config = config
        self.context = hydra_context
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Plan and run everything; ends the process with the sweep's exit code."""
        from profiling import ranges
        from sweep.launch import run_plan

        with ranges.marked("plan", 0):
            made = self.plan(arguments)
        folder = Path(str(self.config.hydra.sweep.dir))

        def launched(numbers: list[int]) -> None:
            jobs = [[f"group={number}", f"hydra.sweep.dir={_quoted(str(folder))}"] for number in numbers]
            for done in self.launcher.launch(jobs, initial_job_idx=0):
                _ = done.return_value  # raises what the job raised; run_group itself does not

        launch = None if self._needs_no_jobs() else launched
        raise SystemExit(run_plan(made, folder, self._dry_run, launch, self._at_once()))

    def _at_once(self) -> int:
        """How many jobs the launcher runs at once, as far as its configuration says."""
        launcher = self.config.hydra.launcher
        jobs = launcher.get("n_jobs", launcher.get("array_parallelism", 1)) or 1
        return int(jobs) if int(jobs) > 0 else os.cpu_count() or 1

    def _needs_no_jobs(self) -> bool:
        """Whether Hydra would run jobs one after another in this process, and do nothing else for them.

        Each job composes the whole configuration, which takes longer than an engine that does nothing.
        """
        hydra = self.config.hydra
        own = (hydra.job.env_set, hydra.job.chdir, hydra.callbacks, hydra.output_subdir)
        return hydra.runtime.choices["hydra/launcher"] == "basic" and not any(own)

    def plan(self, arguments: list[str]) -> Any:
        """All cells that the command line and the study ask for, and what they need, as a Plan."""
        from sweep.engines import registry
        from sweep.plan.add_ons import ADD, BASE, add_ons
        from sweep.plan.axes import feature_names, pairs_and_more, values_of
        from sweep.plan.cells import FEATURE
        from sweep.plan.plans import build_plan, repeats_of_baselines
        from sweep.plan.preflight import cell_from
        from sweep.workload.inputs import ReadOnce

        read = ReadOnce()
        combos, arguments = _combos(arguments)
        given = [f"{key}={value}" for key, value in {**self.params, **combos}.items()]
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        typed = {override.get_key_element() for override in parser.parse_overrides(arguments)}
        parsed = parser.parse_overrides([*given, *arguments])
        axes = {override.get_key_element(): values_of(override) for override in parsed}  # the command line wins
        varying = {key for key, values in axes.items() if len(values) > 1}
        _refuse_several(axes)
        feature_axis = [feature_names(value) for value in axes.pop("feature", ["[]"])]
        words = {word: [feature_names(value) for value in axes.pop(word, ())] for word in (BASE, ADD)}
        adding = add_ons(words, with_features="feature" in typed)  # replaces a study's features
        rest = [[f"{key}={value}" for value in values] for key, values in axes.items()]
        cells: list[Any] = []
        for product in itertools.product(*rest):
            common = [o for o in product if not o.startswith("feature.")]
            bare = self._compose([*common, "feature=[]"])
            self._dry_run = bare.dry_run
            size = int(bare.combine)
            asked = adding.combinations(size) if adding else pairs_and_more(feature_axis, size)
            # Fields of one feature (feature.teacache.rel_l1_thresh=0.3) exist only in cells that have it.
            own = [(o, o.partition("=")[0].split(".")[1]) for o in product if o.startswith("feature.")]
            if own:
                self._refuse_unused(own, asked)
            these = []
            for names in asked:
                mine = [*common, *(o for o, name in own if name in names), f"feature=[{','.join(names)}]"]
                cfg = self._compose(mine) if names else bare
                these.append(cell_from(cfg, mine, _varied(mine, varying), read))
            if adding:
                base, *others = these
                these = [base, *(replace(cell, base_key=base.key) for cell in others)]
            attached = registry.kind(bare.engine.name).attaches  # an attached server keeps its features
            if bare.baselines and not attached and any(cell.role == FEATURE and not cell.skip for cell in these):
                mine = [*common, "feature=[]"]
                these.append(cell_from(bare, mine, _varied(mine, varying), read))
            cells += these
        return build_plan([*cells, *repeats_of_baselines(cells)])

    def _compose(self, overrides: list[str]) -> DictConfig:
        from sweep.arguments import forced
        from sweep.launch import plain

        return plain(self.context.config_loader.load_sweep_config(self.config, list(map(forced, overrides))))

    @staticmethod
    def _refuse_unused(own: list[tuple[str, str]], asked: list[tuple[str, ...]]) -> None:
        from sweep.refusals import nearest, require

        for override, name in own:
            used = any(name in names for names in asked)
            near = nearest(name, {name for names in asked for name in names}) or "; add it to feature=…"
            require(used, f"{override}: the sweep has no cell with feature '{name}'{near}")


ONE = {
    "hardware": "a sweep runs on one machine, so choose one of them",
    "budget": "a sweep has one budget",
    "skip_oom": "choose true or false for the whole sweep",
}
"""Settings of the whole sweep, which are not part of any cell's key."""


def _refuse_several(axes: dict[str, list[str]]) -> None:
    """Check that each setting of the whole sweep has one value: no measurement depends on it."""
    from sweep.refusals import require

    for name, why in ONE.items():
        given = axes.get(name, [])
        require(len(given) < 2, f"{name}={','.join(given)}: {why}")


SAID = {"load": "{}", "load.max_concurrency": "{} in flight", "load.request_rate": "{}/s"}
"""How labels show these settings, instead of `name=value`."""


def _varied(overrides: list[str], varying: set[str]) -> str:
    """What distinguishes a cell from the others, besides features and batch; part of its label."""
    from sweep.masking import masked_text
    from sweep.plan.axes import short_name

    offline = "load=offline" in overrides  # then other load settings have no effect
    own = [o for o in overrides if not (offline and o.startswith("load."))]
    pairs = [masked_text(o).split("=", 1) for o in own if o.split("=", 1)[0] in varying - {"batch", "feature"}]
    return " ".join(SAID.get(name, f"{short_name(name)}={{}}").format(value) for name, value in pairs)


def _combos(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """The parameters of the files that `+combos=FILE` names, and the other arguments. Raises ConfigError."""
    from sweep.plan.combos import parameters

    named = [one for one in arguments if one.startswith("+combos=")]
    found: dict[str, str] = {}
    for one in named:
        found |= parameters(Path(one.partition("=")[2].strip("'\"")))
    return found, [one for one in arguments if one not in named]


def _quoted(value: str) -> str:
    """A value as Hydra's grammar reads it back unchanged."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
