"""What vLLM-Omni's processes report about themselves: our plugin's files in one folder, read after every batch.

`announce` makes every process started later find and load the plugin; `check` fails clearly when a worker did not
load it; `collect` turns the lines of one batch into phases and evidence.
"""

import dataclasses
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import structs

from profiling.evidence import RankEvidence
from profiling.phases import PhaseRecord
from profiling.vllm_plugin import record_files
from profiling.vllm_plugin.record_files import ArRecord, DitRecord, KvCache, Transfer
from sweep.engines.protocol import Request
from sweep.engines.vllm_omni import hand_over

ENTRY_POINT = "[vllm_omni.general_plugins]\nsweep_profiling = profiling.vllm_plugin:install\n"
MARKER_TIMEOUT_S = 10.0
LINES_TIMEOUT_S = 10.0
POLL_S = 0.005


class Workers:
    """The plugin's folder of one engine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "plugin"
        self.folder.mkdir()
        self._offsets: dict[Path, int] = {}
        self._records: list[record_files.Record] = []

    def announce(self) -> None:
        """Make every process that is started from now on load the plugin and write into our folder."""
        os.environ[record_files.FOLDER_VARIABLE] = str(self.folder)
        allowed = os.environ.get("VLLM_PLUGINS")
        if allowed is not None and "sweep_profiling" not in allowed.split(","):
            os.environ["VLLM_PLUGINS"] = f"{allowed},sweep_profiling"
        if not _installed():
            # A checkout that is only on PYTHONPATH has no metadata: give it some.
            site = self.folder.parent / "site"
            metadata = site / "gen_sweep_plugin-0.dist-info"
            metadata.mkdir(parents=True)
            (metadata / "METADATA").write_text(
                "Metadata-Version: 2.1\nName: gen-sweep-plugin\nVersion: 0\n", encoding="utf-8"
            )
            (metadata / "entry_points.txt").write_text(ENTRY_POINT, encoding="utf-8")
            sys.path.append(str(site))
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(site)]))

    def check(self, processes: int) -> None:
        """Raise RuntimeError unless at least this many processes, including this one, loaded the plugin."""
        deadline = time.monotonic() + MARKER_TIMEOUT_S
        while True:
            found = record_files.markers(self.folder)
            _refuse(found.failed)
            if len(found.installed) >= processes:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"the profiling plugin was loaded in {len(found.installed)} of {processes} expected processes, so "
                    "phases and evidence would be missing; add sweep_profiling to VLLM_PLUGINS if it is set, or "
                    "measure without them with engine.plugin=false"
                )
            time.sleep(0.05)

    def begin(self) -> None:
        """Forget what was written before the batch that is about to be sent."""
        self._read()
        self._records = []

    def collect(
        self,
        requests: Sequence[Request],
        ranks: int,
        transfers: int,
        epoch_s: float,
        caches: int = 0,
        data_ranks: int = 1,
    ) -> tuple[tuple[PhaseRecord, ...], tuple[RankEvidence, ...]]:
        """Phases and evidence of the batch that has just come back, from all `ranks` of the DiT.

        `transfers` is how many hand-overs between stages belong to it, `caches` how many KV caches at least, and
        `data_ranks` among how many ranks its requests are divided. Raises RuntimeError when a rank stays silent or the
        plugin failed in any process. A batch that went unobserved (`record_files.PAUSED`) has neither.
        """
        if record_files.paused(self.folder):
            return (), ()
        deadline = time.monotonic() + LINES_TIMEOUT_S
        while True:
            missing = self._missing(math.ceil(len(requests) / data_ranks), ranks, transfers, caches)
            _refuse(record_files.failures(self.folder))
            if not missing:
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"the profiling plugin wrote nothing about this batch on {missing}")
            time.sleep(POLL_S)
            self._read()
        return inner_phases(self._records, requests[0].request_id, epoch_s), merge(self._records)

    def read(self) -> list[record_files.Record]:
        """What was written since the last time. Raises RuntimeError when the plugin failed in any process."""
        _refuse(record_files.failures(self.folder))
        self._read()
        found, self._records = self._records, []
        return found

    def _read(self) -> None:
        for path in sorted(self.folder.glob("*.jsonl")):
            lines, self._offsets[path] = record_files.read_lines(path, self._offsets.get(path, 0))
            kind = path.name.partition("-")[0]
            records = (PARSE[kind](line) for line in lines)
            self._records += [record for record in records if not (isinstance(record, DitRecord) and record.dummy)]

    def _missing(self, requests: int, ranks: int, transfers: int, caches: int) -> str:
        """What has not reported yet: a DiT rank that ran fewer than `requests`, a hand-over, or the AR stage."""
        done: Counter[int] = Counter()
        for record in self._records:
            if isinstance(record, DitRecord):
                done[record.evidence.rank] += len(record.requests)
        silent = [str(rank) for rank in range(ranks) if done[rank] < requests]
        if silent:
            return f"DiT rank {', '.join(silent)}"
        if sum(isinstance(record, Transfer) for record in self._records) < transfers:
            return "the hand-over between the stages"
        begun = sum(len(record.requests) for record in self._records if isinstance(record, ArRecord))
        if begun < transfers:
            return "the AR stage"
        handed = [record for record in self._records if isinstance(record, KvCache)]
        sent = {record.request for record in handed if record.sent}
        received = [record for record in handed if not record.sent]
        if len(received) < caches:
            return "the KV caches that the DiT stage received"
        late = any(record.tokens and record.request not in sent for record in received)
        return "a KV cache that the AR stage sent" if late else ""


def _refuse(failed: Sequence[str]) -> None:
    """Raise RuntimeError when the plugin failed anywhere: its later reports may be incomplete."""
    if failed:
        last = [line for line in failed[0].splitlines() if line.strip()][-1].strip()
        raise RuntimeError(f"the profiling plugin failed in a vLLM-Omni process ({last})")


PARSE: dict[str, Callable[[record_files.Line], record_files.Record]] = {
    "dit": record_files.dit_record,
    "ar": record_files.ar_record,
    "transfer": record_files.transfer,
    "kvsent": record_files.kv_sent,
    "kvreceived": record_files.kv_received,
}
"""By the first word of a file's name."""


def inner_phases(records: Sequence[record_files.Record], name: str, epoch_s: float) -> tuple[PhaseRecord, ...]:
    """Phases of a batch whose first request is called `name`, within the `request` that spans all of its stages.

    That of rank 0's pipeline is left out: it is one part of it.
    """
    return tuple(
        dataclasses.replace(phase, request_id=name)
        for phase in record_files.phase_records(records, epoch_s)
        if not (phase.phase == "request" and phase.rank == 0)
    )


def merge(records: Sequence[record_files.Record]) -> tuple[RankEvidence, ...]:
    """Evidence of each DiT rank over a batch, which may have taken several forwards of the pipeline.

    Reports of the AR stage and the hand-over are stored with rank 0, under names that begin with `ar_`, `tokens_`,
    `hand_over` and `kv_`.
    """
    ranks: dict[int, list[DitRecord]] = {}
    for record in records:
        if isinstance(record, DitRecord):
            ranks.setdefault(record.evidence.rank, []).append(record)
    merged = [_rank_evidence(ranks[rank]) for rank in sorted(ranks)]
    ar = [record for record in records if isinstance(record, ArRecord) and record.rank == 0]
    flow = hand_over.of(records)
    if merged and (ar or flow.counts):
        settings = {f"ar_{name}": value for name, value in (ar[-1].settings if ar else {}).items()}
        merged[0] = structs.replace(
            merged[0],
            settings={**merged[0].settings, **settings, **flow.settings},
            counts={
                **merged[0].counts,
                "ar_steps": sum(record.steps for record in ar),
                **_most(record.counts for record in ar),
                **flow.counts,
                **({"hand_over_bytes": sent} if (sent := _bytes(records)) else {}),
            },
        )
    return tuple(merged)


def _most(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The largest value of each count of the AR stage, under names that begin with `ar_`."""
    found: dict[str, int] = {}
    for name, value in (item for one in counts for item in one.items()):
        found[f"ar_{name}"] = max(found.get(f"ar_{name}", 0), value)
    return found


def _bytes(records: Sequence[record_files.Record]) -> int:
    """Bytes of the messages to the DiT stage; 0 if unknown."""
    return sum(record.bytes for record in records if isinstance(record, Transfer))


def _rank_evidence(records: Sequence[DitRecord]) -> RankEvidence:
    parts = [record.evidence for record in records]
    return RankEvidence(
        rank=parts[0].rank,
        dit_forwards=sum(part.dit_forwards for part in parts),
        denoise_steps=sum(part.denoise_steps for part in parts),
        blocks_run=sum(part.blocks_run for part in parts),
        blocks_skipped=sum(part.blocks_skipped for part in parts),
        block_sequence=max(part.block_sequence for part in parts),
        dit_parameters=max(part.dit_parameters for part in parts),
        settings={**parts[-1].settings, **_attention(parts), "pipeline_calls": str(len(parts))},
        counts={
            **{
                name: max(part.counts.get(name, 0) for part in parts)
                for name in sorted({name for part in parts for name in part.counts})
            },
            "requests_per_rank": sum(len(record.requests) for record in records),
        },
    )


def _attention(parts: Sequence[RankEvidence]) -> dict[str, str]:
    """The back ends of all forwards of the pipeline, where known; a different one in a single forward shows."""
    named = {part.settings["attention_backend"] for part in parts if "attention_backend" in part.settings}
    return {"attention_backend": "+".join(sorted(named))} if named else {}


def _installed() -> bool:
    from importlib.metadata import entry_points

    return any(point.name == "sweep_profiling" for point in entry_points(group="vllm_omni.general_plugins"))
