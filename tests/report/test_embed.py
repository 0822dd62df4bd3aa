"""Images within a budget: each once, the first first."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from sweep.report.page.embed import PREVIEW, SIDES, Picture, data_uri, embed


@pytest.fixture
def picture(tmp_path):
    def save(number, side=256, digest=None):
        path = tmp_path / f"{number}.png"
        pixels = np.random.default_rng(number).integers(0, 256, size=(side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return Picture(path, digest or str(number))

    return save


def opened(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_files_that_all_fit_are_unchanged(picture):
    pictures = [picture(i) for i in range(3)]
    found = embed(pictures, 2_000_000)
    assert found.side is None
    assert not found.previews
    assert found.uris == {p.digest: data_uri(p.path.read_bytes()) for p in pictures}


def test_one_digest_is_embedded_once(picture):
    assert list(embed([picture(1, digest="a"), picture(2, digest="a"), picture(3, digest="b")], 10**7).uris) == [
        "a",
        "b",
    ]


def test_previews_share_the_largest_side_that_fits(picture):
    pictures = [picture(i, 600) for i in range(6)]
    small, large = embed(pictures, 120_000), embed(pictures, 2_000_000)
    for found, budget in ((small, 120_000), (large, 2_000_000)):
        assert len(found.uris) == 6
        assert sum(map(len, found.uris.values())) <= budget
        assert {max(opened(uri).size) for uri in found.uris.values()} == {min(found.side, 600)}
    assert SIDES[-1] <= small.side < large.side


def test_large_pictures_are_scaled_down_however_much_room_there_is(picture):
    small, large = picture(1, SIDES[0]), [picture(i, SIDES[0] + 1) for i in range(2, 8)]
    found = embed([small, *large], 10**9)
    assert found.uris["1"] == data_uri(small.path.read_bytes())
    assert found.previews == {p.digest for p in large}
    assert found.side in SIDES
    assert {max(opened(found.uris[p.digest]).size) for p in large} == {found.side}
    assert sum(len(found.uris[p.digest]) for p in large) <= PREVIEW * len(large)


def test_smooth_pictures_keep_the_largest_side(tmp_path):
    pictures = []
    for number in range(3):
        level = np.add.outer(np.arange(1024), np.arange(1024)) // 9 + number
        Image.fromarray(np.stack([level] * 3, -1).astype(np.uint8)).save(tmp_path / f"{number}.png")
        pictures.append(Picture(tmp_path / f"{number}.png", str(number)))
    found = embed(pictures, 10**7)
    assert found.side == SIDES[0]
    both = Image.open(pictures[0].path), opened(found.uris["0"])
    wanted, shown = (np.asarray(image.resize((64, 64))).astype(int) for image in both)
    assert np.abs(wanted - shown).mean() < 2


def test_small_pictures_that_leave_no_room_for_the_others_become_previews_too(picture):
    pictures = [*(picture(i, 300) for i in range(3)), picture(3, 700)]
    files = sum(len(data_uri(p.path.read_bytes())) for p in pictures[:3])
    assert embed(pictures, files + PREVIEW + 100).previews == {"3"}
    assert embed(pictures, files).previews == {"0", "1", "2", "3"}


def test_when_not_even_the_smallest_fit_the_first_are_kept(picture):
    found = embed([picture(i, 300) for i in range(12)], 60_000)
    assert found.side == SIDES[-1]
    assert list(found.uris) == [str(i) for i in range(len(found.uris))]
    assert 2 <= len(found.uris) < 12
    assert sum(map(len, found.uris.values())) <= 60_000


def test_tiny_pictures_are_never_recompressed(picture):
    tiny = picture(1, 16)
    found = embed([tiny, *(picture(i, 512) for i in range(2, 6))], 300_000)
    assert found.side is not None
    assert found.uris["1"] == data_uri(tiny.path.read_bytes())


def test_what_cannot_be_read_is_left_out(tmp_path, picture):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG" + b"x" * 500_000)
    (tmp_path / "page.html").write_bytes(b"<script>")
    others = [Picture(tmp_path / name, name) for name in ("broken.png", "page.html", "gone.png")]
    assert set(embed([*others, picture(1, 512), picture(2, 512)], 500_000).uris) == {"1", "2"}
    assert data_uri(b"<svg onload=alert(1)>") == ""
