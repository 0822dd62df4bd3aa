"""`python -m sweep.predict queue DIR`: what the loads of a stored sweep should show by the queueing model, and did.

Below each table of measured loads is what loads would show that last long, at rates of your choice, with more servers,
larger batches or another law of arrival. Nothing is measured.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from profiling.printing import clean
from sweep.analysis.percentile_intervals import interval_s
from sweep.analysis.queueing import Queueing, Rung, replayed
from sweep.config.load import LAWS
from sweep.predict import queueing
from sweep.predict.queueing import Figures, Law, Station
from sweep.refusals import ConfigError, require
from sweep.report import stored
from sweep.report.words import digits
from sweep.results.files import Unfit
from sweep.results.folder import SweepFolder

SHARES = (0.3, 0.5, 0.7, 0.8, 0.9)
"""Shares of the rate at saturation: the rates that are shown if none are chosen."""

NOTHING = "no cell was measured under load; load=open load.request_rate=0.5,1,2 measures some"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's options."""
    parser.description = __doc__
    parser.add_argument("folder", type=Path, metavar="DIR", help="a sweep's folder with cells under load")
    parser.add_argument("--rates", metavar="R,R", help="requests a second (default: 30 to 90 %% of the most)")
    parser.add_argument("--servers", type=int, metavar="N", help="as many servers like the measured one")
    parser.add_argument("--batch", type=int, metavar="N", help="most requests that a server takes at once")
    parser.add_argument("--batch-wait-ms", type=float, metavar="MS", help="how long the first waits for company")
    parser.add_argument("--arrivals", choices=LAWS, help="law of arrival (default: that of the load, else poisson)")
    parser.add_argument("--slo-ms", type=float, metavar="MS", help="limit on latency (default: load.slo.e2el)")


def run(given: argparse.Namespace) -> int:
    """Print the tables; 0. Raises ConfigError when DIR is not a sweep, has no loads, or an option makes no sense."""
    rates = _rates(given.rates)
    require(given.slo_ms is None or given.slo_ms > 0, f"--slo-ms={given.slo_ms}: more than 0 milliseconds")
    try:
        found = stored.read(SweepFolder(given.folder)).summary.queues
        require(bool(found), f"{given.folder}: {NOTHING}")
        texts = []
        for one in found:
            texts.append(table_of(one))
            also_open = any(other.is_open and other.source == one.source for other in found if other.rungs)
            if one.rungs and (one.is_open or not also_open):
                texts.append(_expected(one, rates, given))
    except Unfit as error:
        raise ConfigError(f"{given.folder} holds a folder that {error}") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None
    sys.stdout.write("\n".join(texts))
    return 0


def _rates(given: str | None) -> list[float]:
    """Raises ConfigError."""
    try:
        found = [float(one) for one in given.split(",")] if given else []
    except ValueError:
        found = [0.0]
    require(all(0 < one < float("inf") for one in found), f"--rates={given}: requests a second, as 0.5,1,2")
    return found


def table_of(one: Queueing) -> str:
    """The loads of one configuration, measured and predicted, as text that ends with a newline."""
    if not one.rungs:
        return clean(f"{one.name}: no prediction, because {one.why}") + "\n"
    slo = any(rung.predicted.attained is not None for rung in one.rungs)
    level = "requests/s" if one.is_open else "in flight"
    head = [level, "busy", "p50, s", "predicted", "off", "p95, s", "predicted", "off"]
    head += ["off, in order"] if one.is_open else []
    lines = [head + (["meet the SLO", "predicted"] if slo else [])]
    for rung in one.rungs:
        low = [*_both(rung, "p50", 50), *_both(rung, "p95", 95)]
        share = rung.row.get("goodput_share")
        goodput = ["" if share is None else f"{share:.0%}", _share(rung.predicted.attained)]
        low += [_in_order(rung)] if one.is_open else []
        lines.append([_level(rung), _share(min(1.0, rung.predicted.busy)), *low, *(goodput if slo else [])])
    marks = {"*": "service times are its own", "†": "at or beyond saturation: latency depends on how long it lasts"}
    said = [f"{mark} {text}" for mark, text in marks.items() if any(mark in line[0] for line in lines)]
    said += ["in order: p50 and p95 with the times that its own batches took, one after the other"] * one.is_open
    text = [clean(f"{one.name}: {one.text}"), *_aligned(lines), *said]
    return "\n".join(text) + "\n"


def _level(rung: Rung) -> str:
    return f"{rung.level:.4g}{'*' * rung.own_source}{'†' * rung.saturated}"


def _both(rung: Rung, name: str, q: int) -> list[str]:
    """What was measured with its 95 % interval, what is predicted, and how far off it is."""
    place = ("p50", "p95").index(name)
    value = rung.measured[place]
    ends = None if value is None else interval_s(rung.data, q)
    interval = f" ({digits(ends[0])}–{digits(ends[1])})" if ends else ""
    predicted = (rung.predicted.p50_s, rung.predicted.p95_s)[place]
    error = rung.errors.get(name)
    return [f"{digits(value)}{interval}", digits(predicted), "" if error is None else f"{error:+.0%}"]


def _in_order(rung: Rung) -> str:
    """How far p50 and p95 are from the model with the load's own service times in their order: `+1% -2%`."""
    both = zip(rung.measured, replayed(rung), strict=True)
    return " ".join(f"{value / said - 1:+.0%}" for value, said in both if value and said)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _expected(one: Queueing, rates: Sequence[float], given: argparse.Namespace) -> str:
    """What long loads would show, for the station as measured or as changed. Raises ValueError."""
    station = changed(one.rungs[0].station, given.servers, given.batch, given.batch_wait_ms)
    law = (one.law if one.is_open else None) or Law()
    law = dataclasses.replace(law, name=given.arrivals or law.name)
    limit_s = one.limit_s if given.slo_ms is None else given.slo_ms / 1e3
    chosen = rates or [share * station.saturates_at for share in SHARES]
    found = queueing.steady(station, law, chosen, limit_s)
    head = ["requests/s", "busy", "mean, s", "p50, s", "p95, s", "p99, s", "done/s"]
    lines = [head + (["meet the SLO"] if limit_s is not None else [])]
    for rate, said in zip(chosen, found, strict=True):
        lines.append([digits(rate), _share(said.busy), *_times(said), digits(said.per_s)])
        lines[-1] += [_share(said.attained)] if limit_s is not None else []
    servers = f"{station.servers} server{'' if station.servers == 1 else 's'}"
    batch = f", batches of up to {station.batch}" if station.batch > 1 else ""
    slo = "" if limit_s is None else f", SLO {1e3 * limit_s:g} ms"
    about = f"of long loads ({queueing.ASSUMED_LAW}: {law.name}), {servers}{batch}{slo}"
    return "\n".join([f"{about}: saturates at {station.saturates_at:.3g} requests/s", *_aligned(lines)]) + "\n"


def changed(station: Station, servers: int | None, batch: int | None, wait_ms: float | None) -> Station:
    """The same with other servers. Raises ValueError if that is impossible or service times do not cover it."""
    return dataclasses.replace(
        station,
        servers=station.servers if servers is None else servers,
        batch=station.batch if batch is None else batch,
        wait_s=station.wait_s if wait_ms is None else wait_ms / 1e3,
    )


def _times(said: Figures) -> list[str]:
    """Latencies as text; empty at or beyond saturation."""
    found = [digits(one) for one in (said.mean_s, said.p50_s, said.p95_s, said.p99_s)]
    return found if said.p50_s is not None else ["grows", "", "", ""]


def _aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns, numbers on the right."""
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
