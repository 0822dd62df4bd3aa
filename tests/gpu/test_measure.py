"""`python -m sweep.predict measure` on a GPU: what it achieves is below the data sheet's limits, and not far below."""

from pathlib import Path

import pytest

from sweep.machine.devices import cuda_device_count, device_names
from sweep.predict.hardware import by_device_name, device_for
from tests.conftest import finished


def test_a_gpu_achieves_most_of_its_data_sheet_and_never_more(tmp_path: Path) -> None:
    file = tmp_path / "box.yaml"
    done = finished("sweep.predict", ["measure", "--device=cuda", "--seconds=20", "--out", str(file)], tmp_path)
    assert done.code == 0, done.err
    measured = device_for(str(file))
    limit = by_device_name(device_names()[0])
    if limit is None:
        pytest.skip(f"no data sheet of {device_names()[0]} in conf/hardware/")
    assert {*measured.peak_flops} == {*limit.peak_flops}, done.err
    for dtype, peak in limit.peak_flops.items():
        assert 0.3 * peak < measured.peak_flops[dtype] < 1.02 * peak, dtype
    assert 0.6 < measured.bandwidth_bytes_s / limit.bandwidth_bytes_s < 1.05  # type: ignore[operator]
    assert measured.memory_bytes == pytest.approx(limit.memory_bytes, rel=1e-3)
    assert measured.usable_bytes == pytest.approx(limit.usable_bytes, rel=5e-3)
    assert 1e-6 < measured.launch_s < 1e-4  # type: ignore[operator]
    if cuda_device_count() > 1:
        small, large = measured.all_reduce_s(4096, 2), measured.all_reduce_s(1 << 28, 2)
        assert small is not None
        assert large is not None
        assert small < large
        assert measured.peer_bytes_s < 1.05 * limit.peer_bytes_s  # type: ignore[operator]
