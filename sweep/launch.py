"""Runs the groups of a plan, in this process or in a launcher's jobs. The seam between Hydra and the rest."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from profiling import ranges
from profiling.printing import complain
from sweep.plan.nothing_runs import refuse_if_nothing_runs
from sweep.plan.plans import Plan, build_plan
from sweep.plan.preflight import cell_from
from sweep.results.folder import SweepFolder
from sweep.run import group, outlook


def run_single(cfg: DictConfig) -> int:
    """A plain `python -m sweep`: a sweep of one cell. Returns the exit code."""
    hydra = HydraConfig.get()
    with ranges.marked("plan", 0):
        cell = cell_from(cfg, list(hydra.overrides.task))
        made = build_plan([cell])
    return run_plan(made, Path(hydra.runtime.output_dir), cfg.dry_run, None, single=True)


def run_plan(
    made: Plan,
    folder: Path,
    dry_run: bool | int | str,
    launch: group.Launch | None,
    jobs: int = 1,
    single: bool = False,
) -> int:
    """Print or run a plan. `launch` runs `jobs` groups at once; None: one after another, in this process.

    A `single` run has no baselines. Raises ConfigError where no cell can run.
    """
    made, notes, forecast = outlook.checked(made, looked_at=bool(dry_run))
    refuse_if_nothing_runs(made)
    made = outlook.in_order(made, forecast)
    for note in (*made.notes, *notes):
        complain(f"sweep: {note}")
    if dry_run:
        from sweep.report.plan_table import plan_json, print_plan

        seen = outlook.outlook(made, folder, forecast, jobs, single)
        if dry_run == "json":
            print(plan_json(made, seen))
        else:
            print_plan(made, seen=seen)
        return 0
    from sweep.run.session import execute

    def here(numbers: list[int]) -> None:
        sweep = SweepFolder(folder)
        plan = sweep.load_plan(secrets=True)  # it may have grown
        for number in numbers:
            group.run_group(sweep, plan, number)

    return execute(made, folder, launch or here, outlook.budget_of(made, folder, forecast, jobs))


def run_launched_group(cfg: DictConfig) -> None:
    """A job of a multirun: the group with this number, from the plan in the sweep's folder."""
    folder = SweepFolder(Path(HydraConfig.get().sweep.dir))
    made = folder.load_plan(secrets=True)
    group.run_group(folder, made, int(cfg.group))


def plain(cfg: DictConfig) -> DictConfig:
    """The configuration itself, stripped of Hydra's own node so that it matches RunConfig."""
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra", None)
    return cfg
