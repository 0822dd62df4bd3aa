"""`python -m profiling doctor`: what this machine can profile, what is missing, and how to fix it.

Tries things instead of comparing versions: nsys makes, imports and exports a tiny recording. Changes nothing.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
from collections.abc import Sequence

from profiling.doctor import nsys_self_test
from profiling.doctor.machine import MISSING, OK, WARNING, Finding, machine_findings
from profiling.nsys import nsys_cli
from profiling.printing import clean, json_text, say
from profiling.ranges import InteropLibrary, NvtxPackage, TorchNvtx

UNTESTED, NO_LIBRARY, NOT_RECORDED = "untested", "no_library", "not_recorded"
NAMES_ONLY, RECORDED = "names_only", "recorded"
"""Codes of the finding "nvtx ranges"; the code of "nsys trial" is the step that failed."""

LONGEST_S = 86_400.0

EPILOG = """\
examples
  python -m profiling doctor
  NSYS=/path/to/nsys python -m profiling doctor --format json

If something is missing, sweeps still run, without the feature named on that line.

exit codes: 0 done, even when something is missing; 2 bad usage (explained in one line)"""

INSTALL = "install Nsight Systems or set NSYS=/path/to/nsys; only recording and reading .nsys-rep files need it"

REMEDIES = {
    nsys_self_test.RECORD: "run `nsys profile -t nvtx true` and `nsys status -e` by hand to see why; "
    "another version of nsys may work here",
    nsys_self_test.IMPORT: "this installation lacks the importer (QdstrmImporter, in the folder host-linux-x64): "
    "install the full package, not just the target part, or open the .qdstrm file with nsys on another machine",
    nsys_self_test.EXPORT: "you can record here; to export, use a newer nsys on this or another machine: "
    "nsys export -t sqlite FILE.nsys-rep",
    nsys_self_test.RANGES: "",
}
PACKAGES = "run pip install nvidia-nvtx (contains libnvtx3interop), or use nsys 2025.3 or newer with the nvtx package"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.description = "Check what this machine can profile, what is missing, and how to fix it."
    parser.epilog = EPILOG
    parser.add_argument("--format", choices=("text", "json"), default="text", help="output format (default text)")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="time limit for each step of the nsys trial (default 60)",
    )


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) <= LONGEST_S:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and at most {LONGEST_S:g}")


def run(asked: argparse.Namespace) -> int:
    """Print all findings; the exit code is always 0."""
    findings = [*nsys_findings(asked.timeout), *machine_findings()]
    if asked.format == "json":
        say(json_text({"findings": [dataclasses.asdict(finding) for finding in findings]}))
    else:
        say(table(findings))
    return 0


def nsys_findings(timeout_s: float) -> list[Finding]:
    """Nsight Systems, its trial recording, and whether NVTX ranges reach it."""
    try:
        nsys = nsys_cli.find()
    except nsys_cli.NsysError as error:
        return [Finding("nsys", MISSING, error.problem, INSTALL), ranges_without_nsys(_version("nvtx"))]
    here = Finding("nsys", OK, f"{nsys}, {nsys.path}")
    done = nsys_self_test.attempt(nsys, timeout_s)
    return [here, trial_finding(done), ranges_finding(done, nsys.version, _version("nvtx"))]


def trial_finding(done: nsys_self_test.Trial) -> Finding:
    """Whether nsys records, imports and exports."""
    failures = {
        nsys_self_test.RECORD: "nsys cannot record",
        nsys_self_test.IMPORT: "nsys records, but its importer is broken",
        nsys_self_test.EXPORT: "nsys records, but cannot export",
    }
    if done.failed in failures:
        found = f"{failures[done.failed]}: {done.problem}"
        return Finding("nsys trial", MISSING, found, REMEDIES[done.failed], done.failed)
    return Finding("nsys trial", OK, "nsys made, imported and exported a tiny recording")


def ranges_finding(done: nsys_self_test.Trial, nsys: tuple[int, int, int], nvtx: str) -> Finding:
    """Through which library our phase ranges reach nsys, and whether they are in the recording."""
    name, version = "nvtx ranges", ".".join(map(str, nsys[:2]))
    if done.failed in (nsys_self_test.RECORD, nsys_self_test.IMPORT, nsys_self_test.EXPORT):
        found = f"not tested, because the nsys trial failed; {_packages(nvtx)}"
        return Finding(name, WARNING, found, "fix the nsys trial first", UNTESTED)
    if done.backend in ("", "none"):
        found = f"no NVTX library reaches nsys {version}, so traces will contain no phases; {_packages(nvtx)}"
        return Finding(name, MISSING, found, PACKAGES, NO_LIBRARY)
    if done.failed == nsys_self_test.RANGES:
        found = f"{done.problem} (pushed through {done.backend}), so traces will contain no phases"
        return Finding(name, MISSING, found, PACKAGES, NOT_RECORDED)
    if done.backend == TorchNvtx.name:
        found = f"recorded through {done.backend}, which keeps names but neither the domain nor step numbers"
        return Finding(name, WARNING, found, PACKAGES, NAMES_ONLY)
    if done.backend == NvtxPackage.name:
        return Finding(name, OK, f"recorded through the package nvtx {nvtx}", code=RECORDED)
    why = f"nvtx {nvtx} has only a dummy domain under nsys {version}" if nvtx else "nvtx is not installed"
    return Finding(name, OK, f"recorded through {done.backend} ({why})", code=RECORDED)


def ranges_without_nsys(nvtx: str) -> Finding:
    """Which libraries would be tried."""
    found, remedy = f"not tested without nsys; {_packages(nvtx)}", "" if nvtx else PACKAGES
    return Finding("nvtx ranges", OK if nvtx else WARNING, found, remedy, UNTESTED)


def _packages(nvtx: str) -> str:
    """Whether the two libraries that `ranges` tries first are installed."""
    interop = "is not installed"
    with contextlib.suppress(OSError):
        InteropLibrary()
        interop = "is installed"
    return f"{f'nvtx {nvtx} is installed' if nvtx else 'nvtx is not installed'}, {InteropLibrary.name} {interop}"


def _version(package: str) -> str:
    """Version of an installed package, or ""."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def table(findings: Sequence[Finding]) -> str:
    """One line per finding with its remedy indented below, then the count."""
    name_width = max(len(finding.name) for finding in findings)
    status_width = max(map(len, (OK, WARNING, MISSING)))
    lines = []
    for finding in findings:
        lines.append(
            f"{finding.name:<{name_width}}  {finding.status:<{status_width}}  {clean(' '.join(finding.found.split()))}"
        )
        if finding.remedy:
            lines.append(f"{'':<{name_width + status_width + 4}}→ {clean(finding.remedy)}")
    lacking = sum(finding.status != OK for finding in findings)
    verdict = f"{lacking} of {len(findings)} checks are not ok; sweeps still run" if lacking else "all checks are ok"
    return "\n".join([*lines, "", verdict])
