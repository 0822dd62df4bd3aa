"""Limits and places of the machine that the sweep itself runs into: each is said as what it is."""

from sweep.machine.leases import LEASES_VARIABLE
from tests.faults.conftest import NOOP, Sweep

ONE = (*NOOP, "workload.num_prompts=1", "workload.repeats=1")


def test_squatted_lease_folder_is_not_used_and_said(sweep: Sweep) -> None:
    squatted, target = sweep.base / "leases-of-all", sweep.base / "target"
    target.mkdir()
    squatted.symlink_to(target)
    sweep.inject("sweep.machine.leases", f"_usual = lambda: Path({str(squatted)!r})")
    sweep.environment |= {LEASES_VARIABLE: "", "XDG_CACHE_HOME": str(sweep.base / "cache")}
    done = sweep.run("-m", *ONE, "batch=1,2", "engine.threads_per_rank=1,2")
    assert done.code == 0, done.out + done.err
    (line,) = done.err.splitlines()
    assert str(squatted) in line
    assert list((sweep.base / "cache" / "sweep").glob("leases-*/cpu0.lock"))
    assert list(target.iterdir()) == []
