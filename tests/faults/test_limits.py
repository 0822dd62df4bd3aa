"""Limits and places of the machine that the sweep itself runs into: each is reported as what it is."""

import pytest

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


EXHAUST = """
def exhaust(then):
    held = []
    while True:
        try:
            held.append(open("/dev/null"))
        except OSError:
            return then()
"""
"""Calls `then` while no file can be opened."""

IN_PLACES = {
    "while a record is stored": (
        "sweep.results.folder",
        """
_append = SweepFolder.append_record

def append_record(self, cell, *rest):
    return exhaust(lambda: _append(self, cell, *rest)) if cell.config["batch"] == 2 else _append(self, cell, *rest)

SweepFolder.append_record = append_record
""",
    ),
    "while the result is stored": (
        "sweep.results.folder",
        """
_save = SweepFolder.save_result

def save_result(self, cell, result, *rest):
    store = lambda: _save(self, cell, result, *rest)
    return exhaust(store) if cell.config["batch"] == 2 and result.state == "done" else store()

SweepFolder.save_result = save_result
""",
    ),
    "in the engine": (
        "sweep.engines.noop.engine",
        """
_generate = NoopEngine.generate

def generate(self, requests, folder):
    return exhaust(lambda: open("/dev/null")) if len(requests) == 2 else _generate(self, requests, folder)

NoopEngine.generate = generate
""",
    ),
}


@pytest.mark.parametrize("place", IN_PLACES)
def test_out_of_file_descriptors_is_said_as_such_and_costs_one_cell(sweep: Sweep, place: str) -> None:
    module, code = IN_PLACES[place]
    sweep.inject(module, EXHAUST + code)
    done = sweep.run("-m", *NOOP, "workload.num_prompts=2", "workload.repeats=1", "batch=1,2,3")
    assert (done.code, "Traceback" in done.err) == (1, False), done.out + done.err
    assert sweep.statuses() == {
        "baseline b1": ("PASS", ""),
        "baseline b2": ("ERROR", "descriptors"),
        "baseline b3": ("PASS", ""),
    }
    if place != "in the engine":
        assert "ulimit -n" in sweep.reason("baseline b2")
        assert sweep.manifest()["engine_starts"] == 1, "the engine is as good as before"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("OSError(24, 'Too many open files')", "descriptors"),
        ("BlockingIOError(11, 'Resource temporarily unavailable')", "processes"),
        ("MemoryError()", "oom"),
    ],
)
def test_what_an_engine_cannot_be_started_for_is_said_as_such(sweep: Sweep, error: str, code: str) -> None:
    start = f"""
_started = _spawn

def _spawn(spec, *rest):
    if spec.threads_per_rank == 1:
        raise {error}
    return _started(spec, *rest)
"""
    sweep.inject("sweep.engines.process.host", start)
    done = sweep.run("-m", *ONE, "batch=1", "engine.threads_per_rank=1,2")
    assert (done.code, "Traceback" in done.err) == (1, False), done.out + done.err
    assert sweep.statuses() == {
        "baseline b1 threads_per_rank=1": ("ERROR", code),
        "baseline b1 threads_per_rank=2": ("PASS", ""),
    }


def test_out_of_memory_in_the_sweep_itself_is_said_as_such_and_costs_one_cell(sweep: Sweep) -> None:
    """A real allocation above a limit on the address space of the process that stores what was measured."""
    code = """
_append = SweepFolder.append_record

def append_record(self, cell, *rest):
    if cell.config["batch"] == 2:
        import resource
        in_use = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**28, limits[1]))
        try:
            bytearray(2**30)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
    return _append(self, cell, *rest)

SweepFolder.append_record = append_record
"""
    sweep.inject("sweep.results.folder", code)
    done = sweep.run("-m", *ONE, "batch=1,2,3")
    assert (done.code, "Traceback" in done.err) == (1, False), done.out + done.err
    assert [sweep.statuses()[f"baseline b{n}"] for n in (1, 2, 3)] == [("PASS", ""), ("ERROR", "oom"), ("PASS", "")]
    assert "sweep's own process" in sweep.reason("baseline b2")


def test_devices_that_cannot_be_leased_are_an_error_that_says_so(sweep: Sweep) -> None:
    (sweep.base / "file").touch()
    sweep.environment[LEASES_VARIABLE] = str(sweep.base / "file")
    done = sweep.run("-m", *ONE, "batch=1,2")
    assert (done.code, "Traceback" in done.err) == (1, False), done.out + done.err
    assert set(sweep.statuses().values()) == {("ERROR", "lease")}
    assert str(sweep.base / "file") in sweep.reason("baseline b1")
