"""A configuration and its prediction."""

from dataclasses import dataclass

from sweep.config.run import RunConfig
from sweep.predict.hardware import Device
from sweep.predict.prediction import Prediction


@dataclass(frozen=True)
class Row:
    """A configuration and its prediction; `prediction` is None where no engine would run it."""

    label: str  # as a sweep would name it
    features: tuple[str, ...]
    run: RunConfig
    device: Device
    varied: tuple[tuple[str, str], ...] = ()  # overrides with several values, and this one's
    prediction: Prediction | None = None
    skip: str = ""  # why there is none
