"""`python -m profiling doctor`: what this machine can profile, what is missing, and what to do about it.

Tries things rather than asking for versions: nsys makes, imports and exports a tiny recording. Changes nothing.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
from collections.abc import Sequence

from profiling.doctor import nsys_self_test
from profiling.doctor.machine import MISSING, OK, WARNING, Finding, machine_findings
from profiling.nsys import nsys_cli
from profiling.ranges import InteropLibrary, NvtxPackage, TorchNvtx

EPILOG = """\
Exit code 0 also when something is missing: sweeps run without it, only what its line says goes. 2: bad usage.

  python -m profiling doctor
  NSYS=/path/to/nsys python -m profiling doctor --format json
"""

INSTALL = "install Nsight Systems, or set NSYS=/path/to/nsys; only recording and reading a .nsys-rep need it"

REMEDIES = {
    nsys_self_test.RECORD: "run `nsys profile -t nvtx true` by hand, and `nsys status -e`; "
    "another version may record here",
    nsys_self_test.IMPORT: "this installation lacks the importer (QdstrmImporter, folder host-linux-x64): "
    "install the whole package, not only its target part, or open the .qdstrm with an nsys elsewhere",
    nsys_self_test.EXPORT: "recordings can be made here, and exported by a newer nsys, here or elsewhere: "
    "nsys export -t sqlite FILE.nsys-rep",
    nsys_self_test.RANGES: "",
}
PACKAGES = "pip install nvidia-nvtx (libnvtx3interop), or use nsys 2025.3 or newer with the package nvtx"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.description = "What this machine can profile, what is missing, and what to do about it."
    parser.epilog = EPILOG
    parser.add_argument("--format", choices=("text", "json"), default="text", help="text (default) or json")
    parser.add_argument(
        "--timeout", type=_seconds, default=60.0, metavar="SECONDS", help="for each step of nsys's trial (default 60)"
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text}: more than 0 seconds")
    return seconds


def run(asked: argparse.Namespace) -> int:
    """Print all findings; always 0."""
    findings = [*nsys_findings(asked.timeout), *machine_findings()]
    if asked.format == "json":
        print(json.dumps({"findings": [dataclasses.asdict(finding) for finding in findings]}, indent=1))
    else:
        print(table(findings))
    return 0


def nsys_findings(timeout_s: float) -> list[Finding]:
    """Nsight Systems, its trial, and NVTX ranges under it."""
    try:
        nsys = nsys_cli.find()
    except nsys_cli.NsysError as error:
        said = str(error).removesuffix(nsys_cli.INSTALL)
        return [Finding("nsys", MISSING, said, INSTALL), ranges_without_nsys(_version("nvtx"))]
    here = Finding("nsys", OK, f"{nsys}, {nsys.path}")
    done = nsys_self_test.attempt(nsys, timeout_s)
    return [here, trial_finding(done), ranges_finding(done, nsys.version, _version("nvtx"))]


def trial_finding(done: nsys_self_test.Trial) -> Finding:
    """Whether nsys records, imports and exports."""
    told = {
        nsys_self_test.RECORD: "nsys does not record",
        nsys_self_test.IMPORT: "nsys records, but its importer is broken",
        nsys_self_test.EXPORT: "nsys records, but does not export",
    }
    if done.failed in told:
        return Finding("nsys trial", MISSING, f"{told[done.failed]}: {done.problem}", REMEDIES[done.failed])
    return Finding("nsys trial", OK, "a tiny recording was made, imported and exported")


def ranges_finding(done: nsys_self_test.Trial, nsys: tuple[int, int, int], nvtx: str) -> Finding:
    """By which library our phase ranges reach nsys, and whether they are in the recording."""
    name, version = "nvtx ranges", ".".join(map(str, nsys[:2]))
    if done.failed in (nsys_self_test.RECORD, nsys_self_test.IMPORT, nsys_self_test.EXPORT):
        return Finding(name, WARNING, f"could not be tried; {_packages(nvtx)}", "first see to nsys trial")
    if done.backend in ("", "none"):
        said = f"no library reaches nsys {version} ({_packages(nvtx)}): traces will hold no phases"
        return Finding(name, MISSING, said, PACKAGES)
    if done.failed == nsys_self_test.RANGES:
        said = f"pushed through {done.backend}, but {done.problem}: traces will hold no phases"
        return Finding(name, MISSING, said, PACKAGES)
    if done.backend == TorchNvtx.name:
        said = f"recorded through {done.backend}: names only, no domain and no step numbers"
        return Finding(name, WARNING, said, PACKAGES)
    if done.backend == NvtxPackage.name:
        return Finding(name, OK, f"recorded through the package nvtx {nvtx}")
    dummy = f"the package nvtx {nvtx} has but a dummy domain under nsys {version}" if nvtx else "no package nvtx"
    return Finding(name, OK, f"recorded through {done.backend} ({dummy})")


def ranges_without_nsys(nvtx: str) -> Finding:
    """What would be tried."""
    status = OK if nvtx else WARNING
    return Finding("nvtx ranges", status, f"not tried without nsys; {_packages(nvtx)}", "" if nvtx else PACKAGES)


def _packages(nvtx: str) -> str:
    """Which of the libraries that `ranges` tries first are here."""
    with contextlib.suppress(OSError):
        InteropLibrary()
        return f"{f'nvtx {nvtx}' if nvtx else 'no package nvtx'}, {InteropLibrary.name} is here"
    return f"{f'nvtx {nvtx}' if nvtx else 'no package nvtx'}, no {InteropLibrary.name}"


def _version(package: str) -> str:
    """Of an installed package; "" when it is not."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def table(findings: Sequence[Finding]) -> str:
    """A line a finding, its remedy indented below it, and the count."""
    name_width = max(len(finding.name) for finding in findings)
    status_width = max(map(len, (OK, WARNING, MISSING)))
    lines = []
    for finding in findings:
        lines.append(
            f"{finding.name:<{name_width}}  {finding.status:<{status_width}}  {' '.join(finding.found.split())}"
        )
        if finding.remedy:
            lines.append(f"{'':<{name_width + status_width + 4}}→ {finding.remedy}")
    lacking = sum(finding.status != OK for finding in findings)
    verdict = f"{lacking} of {len(findings)} not ok; sweeps run all the same" if lacking else "everything is here"
    return "\n".join([*lines, "", verdict])
