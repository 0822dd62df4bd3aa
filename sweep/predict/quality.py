"""PSNR that sweeps measured with the same features. Quality is not predicted. Pure."""

import math

from sweep.plan.features import combination_name, parse_features
from sweep.predict.calibrate import Calibration
from sweep.predict.row import Row


def psnr_db(row: Row, known: Calibration) -> float | None:
    """Lowest PSNR of this combination, dB; of its lossy members together where it was not measured; None: unknown.

    Lossless features change nothing on their own, so a combination of them has no limit.
    """
    measured = known.psnr_db.get(row.run.model.name, {})
    if not row.features:
        return math.inf
    if (name := combination_name(row.features)) in measured:
        return measured[name]
    chosen = parse_features(row.run.feature, row.run.engine.name)
    lossy = [feature.name for feature in chosen if feature.lossy]
    if any(name not in measured for name in lossy):
        return None
    return min((measured[name] for name in lossy), default=math.inf)
