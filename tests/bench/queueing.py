"""The queueing model against the embedded server: `python -m tests.bench.queueing`, latencies that are slept.

The engine does nothing but sleep, for times whose distribution is known, so the machine's speed matters little. Each
case is a sweep: offline and with one request in flight for the service times, then open loads from 30 to 80 % of the
server's capacity. Prints measured and predicted p50 and p95; exit code 1 where one is off by more than 15 % below
saturation. `--keep DIR` leaves the sweeps there.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sweep.report import queueing_command, stored
from sweep.results.folder import SweepFolder
from tests.conftest import ROOT
from tests.faults.conftest import path_with

SHARES = (0.3, 0.5, 0.65, 0.8)
"""Shares of the server's capacity."""

SLEEPING = """
import random, time
generate = NoopEngine.generate
scatter = random.Random(0)

def sleeping(self, requests, folder):
    began = time.perf_counter()
    usual = {first_s} + {more_s} * (len(requests) - 1)
    time.sleep(usual * scatter.lognormvariate(-{sigma} ** 2 / 2, {sigma}))
    output = generate(self, requests, folder)
    import dataclasses
    return dataclasses.replace(output, start_s=began, latency_s=time.perf_counter() - began)

NoopEngine.generate = sleeping
"""


@dataclass(frozen=True)
class Case:
    """A server: what it takes for the first request of a batch and for each further one, and how this scatters."""

    name: str
    first_s: float
    more_s: float
    sigma: float  # of the logarithm
    batch: int
    wait_ms: float
    arrivals: str

    @property
    def most(self) -> float:
        """Its capacity, in requests per second."""
        return self.batch / (self.first_s + self.more_s * (self.batch - 1))


CASES = (
    Case("one by one, poisson", 0.1, 0.0, 0.3, 1, 0.0, "poisson"),
    Case("one by one, bursts", 0.1, 0.0, 0.2, 1, 0.0, "burst"),
    Case("batches of up to 4", 0.1, 0.03, 0.3, 4, 20.0, "poisson"),
)


def swept(case: Case, folder: Path, requests: int) -> None:
    """Run the case's sweep in `folder`. Raises CalledProcessError."""
    code = SLEEPING.format(first_s=case.first_s, more_s=case.more_s, sigma=case.sigma)
    path = path_with({"sweep.engines.noop.engine": code}, folder.with_name("sleeping"), str(ROOT))
    fixed = ("-m", "engine=noop", "aa=0", "plots=false", f"batch={case.batch}", f"hydra.sweep.dir={folder}")
    rates = ",".join(f"{share * case.most:.3g}" for share in SHARES)
    light = ("load=offline,closed", "load.max_concurrency=1", "load.num_requests=60", "workload.repeats=8")
    opened = ("load=open", f"load.request_rate={rates}", f"load.num_requests={requests}")
    law = (f"load.arrivals={case.arrivals}", f"load.batch_wait_ms={case.wait_ms:g}")
    for load in (light, (*opened, *law, "workload.repeats=8")):
        command = [sys.executable, "-m", "sweep", *fixed, *load]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=True, capture_output=True)


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where a load is off."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.queueing", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--requests", type=int, default=300, help="of each load (default 300)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder for the sweeps")
    asked = parser.parse_args(given)
    off = 0
    with tempfile.TemporaryDirectory(prefix="sweep-bench-") as scratch:
        base = asked.keep.absolute() if asked.keep else Path(scratch)
        for number, case in enumerate(CASES):
            (base / str(number)).mkdir(parents=True)
            folder = base / str(number) / "sweep"
            swept(case, folder, asked.requests)
            found = stored.read(SweepFolder(folder)).summary.queues
            print(f"{case.name}: at most {case.most:.3g} requests/s")
            for one in found:
                sys.stdout.write(queueing_command.table_of(one))
            off += sum(rung.off for one in found for rung in one.rungs)
    return int(off > 0)


if __name__ == "__main__":
    raise SystemExit(main())
