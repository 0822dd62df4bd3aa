"""The figures made from single requests under load, read back from what was drawn."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from profiling.plot_style import style
from sweep.analysis.ladders import KNEE, Ladder
from sweep.report.load_cells import LoadCell
from sweep.report.plots.requests import KINDS, SHOWN, WINDOW, draw_latency_cdf, draw_requests, parts
from sweep.results.records import RequestRow
from tests.analysis.test_loads import CLOSED, OPEN, closed, opened, request
from tests.report.loads import load_cell
from tests.report.test_plots import texts

WAITING, GENERATING = "waiting\n(network and queue)", "generating"


def at(level: int, service_s: float = 0.5, **more: Any) -> LoadCell:
    return load_cell(CLOSED | {"max_concurrency": level}, closed(60, level, service_s), **more)


def cdf(cells: Sequence[LoadCell]) -> Figure:
    with style():
        drawn = draw_latency_cdf(cells)
    assert drawn is not None
    return drawn


def timeline(cells: Sequence[LoadCell], ladders: Sequence[Ladder] = ()) -> Figure:
    with style():
        drawn = draw_requests(cells, ladders)
    assert drawn is not None
    return drawn


def test_one_line_a_cell_goes_through_the_shares_of_its_steady_state() -> None:
    rows = [request(n, 0.1 * n, 1 + 0.01 * (n % 10)) for n in range(100)]
    cell = load_cell(CLOSED, rows)
    (line,) = cdf([cell]).axes[0].lines
    values, shares = numpy.array(line.get_data())
    judged = sorted(one.e2e_s for one in cell.data.judged)
    assert len(judged) < 100
    assert (values[0], values[-1]) == pytest.approx((judged[0], judged[-1]))
    assert (shares[0], shares[-1]) == (0, 1)
    place = numpy.searchsorted(values, 1.045)
    assert shares[place - 1] == pytest.approx(numpy.mean(numpy.array(judged) <= 1.045))


def test_loads_of_one_configuration_share_a_panel_lightest_first() -> None:
    drawn = cdf([at(4), at(1), at(2), at(2, name="teacache b1")])
    first, second = drawn.axes
    assert [line.get_label() for line in first.lines] == ["1 in flight", "2 in flight", "4 in flight"]
    assert len({(to_hex(line.get_color()), line.get_linestyle()) for line in first.lines}) == 3
    assert first.get_title(loc="left") == "baseline b1, closed load"
    assert second.get_title(loc="left") == "teacache b1, closed load"
    assert "← lower is better" in first.get_xlabel()


def test_the_axis_is_logarithmic_where_latencies_span_decades() -> None:
    assert cdf([at(1), at(4)]).axes[0].get_xscale() == "linear"
    assert cdf([at(1), at(16)]).axes[0].get_xscale() == "log"


def test_an_open_load_counts_from_when_requests_were_due() -> None:
    late = [request(n, n + 3.0, 0.5, due_s=float(n)) for n in range(60)]
    axes = cdf([load_cell(OPEN, late)]).axes[0]
    assert set(axes.lines[0].get_xdata()) == {3.5}
    assert "from when it was due" in axes.get_xlabel()


def test_failed_requests_are_said() -> None:
    lost = tuple(msgspec.structs.replace(one, exit_code=1, failure="http") for one in closed(3, 1, 0.1))
    drawn = cdf([at(1, failed=lost), at(2)])
    assert [line.get_label() for line in drawn.axes[0].lines] == ["1 in flight, 3 failed", "2 in flight"]
    assert "3 requests failed and are in no line." in drawn.get_supxlabel()
    assert "failed" not in cdf([at(1)]).get_supxlabel()


def test_of_very_many_requests_a_line_keeps_its_shape_and_a_size_that_fits() -> None:
    cell = load_cell(OPEN, opened(20_000, 1.0, 0.5, 0))
    (line,) = cdf([cell]).axes[0].lines
    assert len(line.get_xdata()) < 1500
    judged = [cell.took_s(one) for one in cell.data.judged]
    middle = line.get_xdata()[numpy.searchsorted(line.get_ydata(), 0.5)]
    assert middle == pytest.approx(numpy.quantile(judged, 0.5), rel=0.01)


def test_without_loads_there_are_no_figures() -> None:
    assert draw_latency_cdf([]) is None
    assert draw_requests([], []) is None


def segments(drawn: Figure, place: int = 0) -> dict[str, list[tuple[float, float, float]]]:
    """(line, begin, end) of each kind of part of a timeline."""
    found: dict[str, list[tuple[float, float, float]]] = {}
    for lines in drawn.axes[place].collections:
        for (begin, y), (end, _) in lines.get_segments():
            found.setdefault(str(lines.get_label()), []).append((float(y), float(begin), float(end)))
    return found


def test_a_request_waits_then_generates() -> None:
    row = msgspec.structs.replace(request(0, 1.0, 2.0), queue_s=0.4, start_s=1.5)
    assert parts(row) == [(WAITING, 1.0, 1.5), (GENERATING, 1.5, 3.0)]
    late = msgspec.structs.replace(row, intended_s=0.5)
    assert parts(late)[0] == ("due, not yet sent", 0.5, 1.0)
    unknown = msgspec.structs.replace(row, queue_s=None)
    assert [kind.partition("\n")[0] for kind, *_ in parts(unknown)] == ["waiting or generating"]
    failed = msgspec.structs.replace(row, exit_code=1)
    assert parts(failed) == [("failed", 1.0, 3.0)]
    assert {kind for row in (late, unknown, failed) for kind, *_ in parts(row)} == set(KINDS)


def test_a_timeline_has_each_request_and_shades_the_steady_state() -> None:
    def queued(one: RequestRow) -> RequestRow:
        return msgspec.structs.replace(one, start_s=(one.done_s or 0.0) - 0.5)

    cell = load_cell(CLOSED, [queued(one) for one in closed(40, 4, 0.5)])
    drawn = timeline([cell])
    found = segments(drawn)
    assert {y for y, *_ in found[GENERATING]} == set(range(40))
    assert all(end - begin == pytest.approx(0.5) for _, begin, end in found[GENERATING])
    (shade,) = drawn.axes[0].patches
    window = cell.data.windows[0]
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == pytest.approx((window.from_s, window.to_s))
    assert to_hex(shade.get_facecolor()) == WINDOW.lower()
    assert {WAITING, GENERATING, "steady state: what\nfigures are made from"} <= set(texts(drawn))
    assert not {"failed", "due, not yet sent"} & set(texts(drawn))


def test_only_the_first_of_very_many_requests_are_drawn_and_it_says_so() -> None:
    drawn = timeline([load_cell(CLOSED, closed(1000, 4, 0.5))])
    assert {y for y, *_ in segments(drawn)[GENERATING]} == set(range(SHOWN))
    assert "Only the first requests of a cell are drawn" in drawn.get_supxlabel()
    assert f"first {SHOWN} of 1000 requests" in drawn.axes[0].get_title(loc="left")


def test_of_a_light_load_so_few_are_drawn_that_each_can_be_seen() -> None:
    drawn = timeline([load_cell(OPEN, [request(n, float(n), 0.05) for n in range(500)])])
    axes = drawn.axes[0]
    (begin, end), found = axes.get_xlim(), segments(drawn)[GENERATING]
    assert 40 <= len(found) < 100
    assert all((done - sent) / (end - begin) > 0.001 for _, sent, done in found)


def test_failed_requests_are_marked() -> None:
    lost = (msgspec.structs.replace(request(50, 3.0, 1.0), exit_code=1),)
    assert len(segments(timeline([at(1, failed=lost)]))["failed"]) == 1


def test_one_cell_of_each_configuration_is_drawn_the_one_at_the_knee() -> None:
    cells = [at(level) for level in (1, 2, 4)] + [at(level, name="teacache b1") for level in (1, 2)]
    rungs = tuple(one.row for one in cells[:3])
    ladder = Ladder("baseline b1", "concurrency", rungs, KNEE, "", 2.0)
    titles = [axes.get_title(loc="left") for axes in timeline(cells, [ladder]).axes]
    assert titles == ["baseline b1, closed, 2 in flight", "teacache b1, closed, 2 in flight"]


def test_hostile_names_draw() -> None:
    name = "<b>$x^2$</b> 一只猫 " + "very_long_name " * 20
    for drawn in (cdf([at(1, name=name)]), timeline([at(1, name=name)])):
        assert any("<b>$x^2$</b>" in text for text in texts(drawn))


def test_parts_of_a_long_load_share_a_panel_in_their_order() -> None:
    parts_of_it = [load_cell(CLOSED | {"search": "soak", "part": n}, closed(60, 4, 0.5)) for n in (2, 0, 1)]
    axes = cdf(parts_of_it).axes
    assert [[line.get_label() for line in one.lines] for one in axes] == [["part 1", "part 2", "part 3"]]
    assert len(timeline(parts_of_it).axes) == 1
