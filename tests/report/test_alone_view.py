"""The table of single features at the top of the page."""

from sweep.report.matrix import matrices
from sweep.report.page.alone_view import CONTEXTS, FEATURES, view
from tests.report import shapes

NAMES = ("cfg_parallel", "teacache", "cfg_parallel+teacache")


def rows_of(*batches: int):
    return [shapes.row(name, batch=batch) for batch in batches for name in ("", *NAMES)]


def test_a_line_has_a_feature_and_a_column_what_sets_a_context_apart() -> None:
    rows = rows_of(1, 2)
    rows[1] |= {"gpus": 2, "ranks": 2}
    rows[6] |= {"status": "FAIL", "reason": "a pixel differs by 0.2, more than the gate of 0.05", "called": "faster"}
    found = view(matrices(rows))
    assert found is not None
    assert found["columns"] == ["batch 1", "batch 2"]
    assert [line["name"] for line in found["lines"]] == ["cfg_parallel", "teacache"]
    assert found["lines"][0]["needs"] == "2 devices, 2 ranks ran"
    good, bad = found["lines"][1]["fields"]
    assert (good["status"], good["speedup"], good["reason"]) == ("PASS", f"{rows[2]['speedup']:.2f}×", "")
    assert good["quality"].endswith(" dB")
    assert good["noise"], "nothing judged it"
    assert (bad["sign"], bad["reason"], bad["noise"]) == ("✗", rows[6]["reason"], False)


def test_there_is_none_where_it_would_not_fit_and_where_nothing_ran() -> None:
    assert view(matrices([])) is None
    assert view(matrices(rows_of(*range(1, CONTEXTS + 2)))) is None
    skipped = [row | {"status": "SKIP", "speedup": None} for row in rows_of(1)]
    assert view(matrices(skipped)) is None
    many = [shapes.row("teacache") | {"features": f"feature_{i}"} for i in range(FEATURES + 1)]
    assert view(matrices(many)) is None
    assert len(view(matrices(many[:-1]))["lines"]) == FEATURES  # type: ignore[index]
