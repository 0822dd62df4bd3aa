"""Labels are shortened so that they stay apart, in columns of a terminal and not in characters."""

import pytest
from rich.cells import cell_len

from sweep.report import labels
from sweep.report.labels import Cell, Name


@pytest.mark.parametrize("width", [1, 5, 8, 13, 40])
def test_a_cut_label_fits(width: int) -> None:
    for text in ("cache_dit+cfg_parallel b16", "画像生成モデル b1", "a", ""):
        for tail in (0, 3, width):
            assert cell_len(labels.cut(text, width, tail)) <= width


def test_labels_lose_their_end_or_their_middle_whichever_keeps_them_apart() -> None:
    assert labels.shortened(["abcdefgh", "zbcdefgh"], 5) == ["abcd…", "zbcd…"]
    assert labels.shortened(["abcdefgh b1", "abcdefgh b2"], 8) == ["abcd… b1", "abcd… b2"]
    assert labels.shortened(["short", "abcdefgh b2"], 8) == ["short", "abcdefg…"]


def test_a_label_that_is_its_heading_alone_is_kept() -> None:
    cells = [Cell("model=a", "a"), Cell("b1 model=a", "a"), Cell("b1 model=b", "b"), Cell("b2 model=b", "b")]
    assert labels.named(cells)[0] == Name("a", "model=a")
    assert labels.named(cells)[3] == Name("b", "b2")


def test_texts_have_no_size() -> None:
    cells = [Cell("a b1", "m", "e", "0", "0"), Cell("a b2", "m", "e", "0", "0")]
    assert {name.heading for name in labels.named(cells)} == {""}


def test_cells_that_differ_in_batch_share_their_name() -> None:
    names = {"x b1 model=q": Name("q", "x b1")}
    assert labels.listed(["ring b1", "ring b2", "tp b1", "x b1 model=q"], names) == "ring b1, b2, tp b1; q: x b1"
    assert labels.listed(["a", "b", "c"], {}, 2) == "a, b and 1 more"
