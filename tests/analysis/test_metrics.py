"""Definitions of record, against values worked out by hand."""

import subprocess
import sys

import pytest

from sweep.analysis import metrics
from sweep.analysis.metrics import Bottleneck


def test_percentile_is_linear_and_in_the_values_unit():
    assert metrics.percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert metrics.percentile([1.0, 2.0], 90) == pytest.approx(1.9)
    assert metrics.percentile(list(range(20)), 95) == pytest.approx(18.05)


@pytest.mark.parametrize(("q", "too_few"), [(50, 0), (90, 0), (95, 19), (99, 99), (99.9, 99)])
def test_percentile_needs_enough_samples(q, too_few):
    assert metrics.percentile([1.0] * too_few, q) is None
    assert metrics.percentile([1.0] * (too_few + 1), q) == 1.0


def test_means():
    assert metrics.mean([]) is None
    assert metrics.mean([1.0, 2.0, 6.0]) == 3.0
    with pytest.raises(ValueError, match=r"\b0\.0\b"):
        metrics.positive([[1.0, 0.0]])


def test_wall_time_counts_what_overlaps_once_and_gaps_not_at_all():
    assert metrics.wall_s([(0.0, 2.0), (1.0, 3.0), (1.5, 2.5)]) == 3.0
    assert metrics.wall_s([(7.0, 8.0), (0.0, 1.0), (0.0, 1.0)]) == 2.0
    assert metrics.wall_s([]) == 0.0


def test_rates_and_tpot():
    assert metrics.images_per_s(6, 4.0) == 1.5
    assert metrics.images_per_s(6, 0.0) is None
    assert metrics.images_per_s_per_gpu(6, 4.0, 2) == 0.75
    assert metrics.images_per_s_per_gpu(6, 4.0, 0) is None
    assert metrics.tpot(3.0, 1.0, 5) == 0.5
    assert metrics.tpot(3.0, 1.0, 1) is None
    assert metrics.tpot(3.0, None, 5) is None


def test_energy_is_divided_by_the_images_that_it_made():
    assert metrics.energy_j_per_image([(300.0, 3)]) == 100.0
    assert metrics.energy_j_per_image([(300.0, 3), (500.0, 5)]) == 100.0
    assert metrics.energy_j_per_image([(300.0, 3), (None, 5)]) == 100.0
    assert metrics.energy_j_per_image([(None, 3)]) is None
    assert metrics.energy_j_per_image([(0.0, 0)]) is None
    assert metrics.energy_j_per_image([]) is None


def test_interaction_gain():
    assert metrics.interaction_gain(3.0, [1.5, 2.0]) == pytest.approx(1.0)
    assert metrics.interaction_gain(1.5, [1.5, 2.0]) == pytest.approx(0.5)
    assert metrics.interaction_gain(None, [1.5]) is None
    assert metrics.interaction_gain(1.5, [1.5, None]) is None
    assert metrics.interaction_gain(1.5, []) is None


TIMELINE = [
    *[("denoise_step", 20.0)] * 3,
    *[("dit_forward", 19.0)] * 3,
    ("ar_prefill", 10.0),
    ("ar_decode", 15.0),
    ("vae_decode", 5.0),
    ("request", 100.0),
]


def test_phases_and_other_make_up_the_request():
    totals = metrics.phase_totals(TIMELINE)
    assert list(totals) == ["request", "ar_prefill", "ar_decode", "denoise_step", "dit_forward", "vae_decode", "other"]
    assert totals["other"] == 10.0
    assert sum(totals[phase] for phase in totals if phase not in ("request", "dit_forward")) == 100.0
    assert metrics.phase_totals(TIMELINE * 2, requests=2) == totals


def test_bottleneck_is_never_the_nested_phase_nor_the_request_nor_other():
    assert metrics.bottleneck(metrics.phase_shares(metrics.phase_totals(TIMELINE))) == Bottleneck("denoise_step", 0.6)
    nested = {"request": 100.0, "denoise_step": 20.0, "dit_forward": 70.0, "other": 80.0}
    assert metrics.bottleneck(metrics.phase_shares(nested)) == Bottleneck("denoise_step", 0.2)
    assert metrics.bottleneck(metrics.phase_shares({"request": 5.0, "other": 5.0})) is None
    assert metrics.bottleneck({}) is None


def test_shares_without_a_recorded_request_are_of_the_phases_sum():
    assert metrics.phase_shares({"ar_decode": 30.0, "denoise_step": 10.0, "dit_forward": 8.0}) == pytest.approx(
        {"ar_decode": 0.75, "denoise_step": 0.25, "dit_forward": 0.2}
    )
    assert "other" not in metrics.phase_totals([("ar_decode", 1.0)])


def test_an_unknown_phase_is_refused():
    with pytest.raises(ValueError, match=r"\bdenoise\b.*\brequest\b"):
        metrics.phase_totals([("denoise", 1.0)])


def test_importing_metrics_loads_neither_pandas_nor_torch():
    probe = "import sys, sweep.analysis.metrics; print({'pandas', 'numpy', 'torch'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", probe], text=True).strip() == "set()"
