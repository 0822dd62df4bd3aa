"""How far each cell was from its prediction and from the limit of its devices. Pure.

For cells that were measured offline on a known device, with a model of known shape.
The formulas are in `sweep.predict`; this module collects their inputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sweep.analysis.engagement import Executed as Evidence
from sweep.config.model import Model
from sweep.plan.cells import Cell
from sweep.predict import executed
from sweep.predict.calibration_files import calibration_for
from sweep.predict.executed import Executed
from sweep.predict.factors import Factors
from sweep.predict.hardware import Device, device_where
from sweep.predict.observed import MEASURED
from sweep.predict.point import Point, point_of
from sweep.predict.prediction import Prediction
from sweep.predict.reached import Reached, reached
from sweep.refusals import ConfigError

GB = 1e9

TOLD = ("random_weights", "shapes")
"""Keys of manifest.json that say what a checkpoint held, by model."""


@dataclass
class Limits:
    """The cells of one sweep. What cells share is looked up once."""

    manifest: Mapping[str, Any]
    _devices: list[tuple[Any, tuple[Device, Factors] | None]] = field(default_factory=list)  # with what it depends on
    _models: dict[str, tuple[Model, Model]] = field(default_factory=dict)
    _said: dict[str, dict[Point, Prediction]] = field(default_factory=dict)  # by device and engine

    def of(self, cell: Cell, row: Mapping[str, Any], evidence: Evidence) -> Reached | None:
        """One cell with its row of summary.csv; None where nothing can be said."""
        if row.get("load") or not row.get("latency_mean_s"):
            return None
        try:
            return self._of(cell, row, evidence)
        except ConfigError:  # too little is known about a feature, the model or the device
            return None

    def _of(self, cell: Cell, row: Mapping[str, Any], evidence: Evidence) -> Reached | None:
        run = cell.run_config
        where = self._where(cell)
        if where is None:
            return None
        device, by = where
        did = _executed(evidence)
        random = bool((self.manifest.get(TOLD[0]) or {}).get(run.model.name))
        asked = point_of(run, cell.device, by.skip.get(run.model.name) if random else None)
        model = self._model(asked.model, did)
        executed.check_size(model, asked.effects, did)
        before = executed.with_compiling(replace(asked, model=model), did)
        memory = row.get("peak_memory_gb")
        return reached(
            before,
            executed.with_skips(before, did),
            device,
            by,
            row["latency_mean_s"],
            {name: ms / 1000 for name in MEASURED if (ms := row.get(f"{name}_ms")) is not None},
            None if memory is None else memory * GB,
            did.parts_bytes,
            self._said.setdefault(f"{device.name} {run.engine.name}", {}),
        )

    def _where(self, cell: Cell) -> tuple[Device, Factors] | None:
        asked = cell.config["hardware"], cell.device, cell.config["engine"]["name"]
        for known, where in self._devices:
            if known == asked:
                return where
        found = device_where(cell.run_config.hardware, self.manifest.get("machine") or {}, cell.device)
        where = None if found is None else (found, calibration_for(found.name, asked[2]).factors)
        self._devices.append((asked, where))
        return where

    def _model(self, model: Model, did: Executed) -> Model:
        key = f"{model.name} {did.settings.get('dit_blocks', '')}"
        if key not in self._models or self._models[key][0] != model:
            random, stored = ((self.manifest.get(name) or {}).get(model.name) or {} for name in TOLD)
            self._models[key] = model, executed.model_that_ran(model, random, stored, did)
        return self._models[key][1]


def _executed(evidence: Evidence) -> Executed:
    ranks = evidence.total
    return Executed(
        sum([rank.blocks_run for rank in ranks]),
        sum([rank.blocks_skipped for rank in ranks]),
        ranks[0].settings if ranks else {},
        tuple(rank.counts for rank in ranks),
        ranks[0].dit_parameters if ranks else 0,
    )


def columns(found: Reached) -> dict[str, float | None]:
    """The columns of summary.csv."""
    return {
        "predicted_latency_s": found.said.latency_s,
        "prediction_error": found.prediction_error,
        "limit_latency_s": found.limit_s,
        "limit_share": found.limit_share,
        "mfu": found.mfu,
        "denoise_step_mfu": found.denoise_step_mfu,
        "vae_decode_mfu": found.vae_decode_mfu,
        "ar_decode_bandwidth_share": found.ar_decode_bandwidth_share,
        "predicted_peak_memory_gb": found.said.memory.total / GB,
    }


def fill(rows: Sequence[dict[str, Any]], found: Mapping[str, Reached]) -> None:
    """Fill in the columns of the rows whose cell's key is in `found`, unless profiled: profiling takes time as well."""
    for row in rows:
        if row["cell_key"] in found and not row.get("profiled"):
            row |= columns(found[row["cell_key"]])
