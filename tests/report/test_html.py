"""The page as text: self-contained, escaped, and complete. What a browser makes of it: test_chromium.py."""

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas
import pytest
from PIL import Image

from sweep.analysis import columns, paired
from sweep.plan.plans import Plan
from sweep.report import words
from sweep.report.page import contents, html
from sweep.report.page.embed import Picture
from sweep.report.page.html import CellView, ImageView, ReportContext, render
from sweep.report.plots.draw import draw_all
from sweep.results.folder import SweepFolder
from tests import processor_time
from tests.report import made_up, shapes

NASTY = "<script>alert(1)</script> \"'&amp; </figcaption><!-- {{ 7*7 }}"


class Page(HTMLParser):
    """What a browser would see: tags, attributes, text; fails on tags that are not closed in order."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.sources, self.links, self.words, self.open, self.ids = [], [], [], [], [], []
        self.shown, self.scripts, self.policy, self.classes = [], [], "", []
        self.feed(text)
        assert self.open == []
        self.store = json.loads(self.scripts[0])

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.sources += [values[name] for name in ("src", "srcset") if name in values]
        self.shown += [values["data-img"]] if "data-img" in values else []
        self.links += [values["href"]] if "href" in values else []
        self.ids += [values["id"]] if "id" in values else []
        self.classes += values.get("class", "").split()
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]
        assert not any(name.startswith("on") for name in values)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def image(tmp_path):
    def save(name, side=16):
        pixels = np.random.default_rng(len(name)).integers(0, 256, size=(side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        return Picture(tmp_path / name, f"{name} {side}")

    return save


def context(cells=(), plots=(), **fields):
    return ReportContext(**{"title": "Sweep", "cells": cells, "plots": plots, **fields})


def test_everything_from_outside_is_escaped(image):
    row = shapes.row("teacache", cell=NASTY, model=NASTY, evidence=NASTY, bottleneck=NASTY, reason=NASTY, called=NASTY)
    row |= {"invalid_reason": NASTY}
    pair = shapes.row("teacache+tp", model=NASTY, cell=NASTY) | {"features": f"teacache+{NASTY}"}
    images = (ImageView(NASTY, image("a.png"), image("b.png")),)
    view = CellView(NASTY, NASTY, row, images, True, (NASTY,), (NASTY,))
    told = {"title": NASTY, "command": NASTY, "date": NASTY, "environment": {NASTY: NASTY}, "note": NASTY}
    seen = Page(render(context([view, CellView(NASTY, "PASS", pair)], [Path(f"{NASTY}.png")], **told)))
    assert seen.tags.count("script") == 2
    assert seen.text.count("<script>alert(1)</script>") >= 20
    assert "&lt;" not in seen.text  # not escaped twice either
    assert "{{ 7*7 }}" in seen.text


def test_json_cannot_end_its_script_element():
    text = html._json({"</script><!--": "a & b"})
    assert not set("<>&") & set(text)
    assert json.loads(text) == {"</script><!--": "a & b"}


def test_the_policy_allows_nothing_but_the_pages_own_script():
    text = render(context())
    seen = Page(text)
    digest = base64.b64encode(hashlib.sha256(seen.scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in seen.policy
    assert "default-src 'none'; img-src data:" in seen.policy
    assert len(seen.scripts[1]) < 5000


def test_the_page_needs_no_network_and_no_other_file(tmp_path, image):
    pictures = [path for path in draw_all(pandas.DataFrame(shapes.full()), tmp_path / "plots") if path.suffix == ".svg"]
    images = (ImageView("a cat", image("a.png"), image("b.png")),)
    text = render(context([CellView("teacache b1", "PASS", shapes.row("teacache"), images, True)], pictures))
    seen = Page(text)
    assert seen.classes.count("plot") == len(pictures)
    assert all(source.startswith("data:image/") for source in [*seen.sources, *seen.store.values()])
    assert all(link.startswith("#") and link[1:] in seen.ids for link in seen.links)
    assert not re.search(r"@import|url\(", text.split("<body>")[0])


def test_small_images_are_embedded_as_they_are_and_once(image):
    same, other = image("same.png"), image("other.png")
    views = [CellView("baseline", "PASS", images=(ImageView("p", same),))]
    for name, picture in (("cfg_parallel", same), ("teacache", other)):
        views.append(CellView(name, "PASS", images=(ImageView("p", picture, same),), has_baseline=True))
    seen = Page(render(context(views)))
    content = [base64.b64decode(uri.split(",", 1)[1]) for uri in seen.store.values()]
    assert content == [same.path.read_bytes(), other.path.read_bytes()]
    assert seen.text.count("identical") == 1
    assert set(seen.shown) == set(seen.store)
    assert seen.tags.count("input") == 1  # nothing to amplify where images are identical


def test_scaled_down_pictures_say_so_and_lead_to_their_files(tmp_path, image):
    (tmp_path / 'cell: b=1 #"é' / "images").mkdir(parents=True)
    nested = image('cell: b=1 #"é/images/large.png', 600)
    large, small, outside = image("other.png", 600), image("small.png"), Picture(Path("elsewhere/large.png"), "")
    outside = Picture(outside.path, large.digest)
    views = [
        CellView("large", "PASS", images=(ImageView("p", nested, large),), has_baseline=True),
        CellView("small", "PASS", images=(ImageView("p", small),)),
        CellView("outside", "PASS", images=(ImageView("p", outside),)),
    ]
    text = render(context(views, folder=tmp_path))
    seen = Page(text)
    links = [link for link in seen.links if not link.startswith("#")]
    assert links == ["other.png", "cell%3A%20b%3D1%20%23%22%C3%A9/images/large.png"]
    assert [(tmp_path / unquote(link)).is_file() for link in links] == [True, True]
    assert seen.text.count("A preview links to its full image, in a folder next to this page.") == 1
    assert seen.text.count("Images are previews of up to") == 2
    assert "preview" not in seen.text[seen.text.index("PASS small") : seen.text.index("PASS outside")]
    assert base64.b64decode(seen.store[seen.shown[4]].split(",", 1)[1]) == small.path.read_bytes()


def test_cells_status_reason_phases_and_evidence_are_told():
    rows = shapes.with_errors()
    views = [CellView(r["cell"], r["status"], r, overrides=("batch=1",), config=("batch=1", "seed=3")) for r in rows]
    environment = {"machine": "2 cores", "git_commit": ""}
    seen = Page(render(context(views, note="Random weights: pictures mean nothing.", environment=environment)))
    for expected in (
        *(row["cell"] for row in rows),
        *(row["reason"] for row in rows),
        *("Random weights: pictures mean nothing.", "machine 2 cores", "2 ranks, 8 DiT forwards each", "4 PASS"),
        *("ar_decode 310 ms (42.0 %)", "denoise_step 53%", "0.739", "identical", "1 SKIP", "seed=3"),
    ):
        assert expected in seen.text
    assert "git_commit" not in seen.text
    assert "None" not in seen.text
    assert "nan" not in seen.text.split()
    assert "dit_forward" not in seen.text


def test_conclusions_are_at_the_top_before_any_table():
    rows = [shapes.row("teacache", p_holm=0.001), shapes.row("ring", p_holm=0.2)]
    cells = [CellView(r["cell"], r["status"], r) for r in rows]
    page = render(dataclasses.replace(context(cells), conclusions=["Fastest that passes: <b> b1.", "Next: nothing."]))
    assert "Fastest that passes: <b> b1." in Page(page).text
    assert page.index("Next: nothing.") < page.index("<table")
    text = Page(page).text
    assert "Each interval and verdict allows 5 % error for its cell alone; 2 cells are judged." in text


def test_the_matrix_is_there_only_when_features_can_be_compared():
    def with_rows(*names):
        classes = Page(render(context([CellView(name, "PASS", shapes.row(name)) for name in names]))).classes
        return [name for name in ("matrix", "larger") if name in classes]

    assert with_rows("", "teacache", "cfg_parallel") == ["matrix"]
    assert with_rows("teacache+cfg_parallel") == ["matrix"]
    assert with_rows("", "teacache") == []
    assert with_rows("cache_dit+cfg_parallel+teacache") == ["larger"]


def test_columns_that_say_nothing_are_left_out():
    rows = [shapes.row(""), shapes.row("teacache")]
    text = Page(render(context([CellView(r["cell"], "PASS", r) for r in rows]))).text
    headings = [columns.BY_NAME[name].heading for name in ("energy_j_per_image", "interaction_gain")]
    assert not [word for heading in headings if (word := heading.split(",")[0]) in text]
    rows[1] |= {"energy_j_per_image": 12.0, "interaction_gain": 0.9}
    text = Page(render(context([CellView(r["cell"], "PASS", r) for r in rows]))).text
    assert all(heading in text for heading in headings)
    assert "0.90×" in text


def test_what_is_missing_becomes_a_placeholder(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"x" * 1000)
    gone, broken = Picture(tmp_path / "gone.png", "1"), Picture(tmp_path / "broken.png", "2")
    images = (ImageView("p", gone), ImageView("q", None), ImageView("r", broken))
    seen = Page(render(context([CellView("a", "PASS", images=images, has_baseline=True)], [Path("gone/speedup.png")])))
    assert seen.text.count("no difference map") == 2
    assert "The plot speedup is not embedded; see plots/speedup.png." in seen.text
    assert "1 more image is in the cell's folder." in seen.text  # a file that is there, but cannot be read
    assert seen.sources == []
    assert seen.store == {}


def test_prompts_of_any_script_and_length():
    prompts = ("", "字" * 10_000, "🦊 שלום مرحبا", "lone \ud800 surrogate")
    text = render(context([CellView("a", "PASS", images=[ImageView(prompt, None) for prompt in prompts])]))
    assert prompts[1] in text
    assert prompts[2] in text
    text.encode("utf-8")


def test_the_page_explains_an_a_a_run_before_its_label():
    judged = shapes.row("teacache", called=paired.FASTER)
    again = shapes.row("", aa=True)
    text = Page(render(context([CellView(r["cell"], "PASS", r) for r in (judged, again)]))).text
    assert text.index(words.AA_EXPLAINED) < text.index(again["cell"])
    assert words.AA_EXPLAINED not in Page(render(context([CellView("b", "PASS", judged)]))).text


def test_an_empty_sweep_is_a_page():
    assert "No cells." in Page(render(context())).text


def test_a_huge_sweep_is_rendered_quickly_and_says_what_it_leaves_out(tmp_path):
    cells = [made_up.cell((f"f{i}",), 1 + i % 7, extra=f" n={i}") for i in range(10_000)]
    row = shapes.row("teacache")
    rows = [row | {"cell": c.label, "features": c.features[0], "speedup": i / 5000} for i, c in enumerate(cells)]
    rows[17] |= {"status": "FAIL", "reason": "did not engage"}
    few, many = slice(None, None, 4), slice(None)
    seconds = {}
    for name, part in (("few", few), ("many", many)):
        folder, plan = SweepFolder(tmp_path), Plan(tuple(cells[part]), ())
        seconds[name] = processor_time.of(lambda f=folder, p=plan, r=rows[part]: contents.write(f, p, r, {}, []))
    assert seconds["many"] < 2 * 4 * seconds["few"], "at 10,000 cells under 5 s (make bench)"
    path = tmp_path / "report.html"
    assert path.stat().st_size < 6_000_000
    seen = Page(path.read_text())
    assert seen.tags.count("tr") < 2000 + 500
    assert "8000 more cells are in summary.csv." in seen.text
    assert seen.ids.count("cell-17") == 1  # failed
    assert seen.ids.count("cell-9999") == 1  # fastest
    assert sum(name.startswith("cell-") for name in seen.ids) <= html.SECTIONS


def test_rows_with_a_section_are_what_went_wrong_and_the_fastest():
    rows = [shapes.row("teacache") | {"speedup": 1.0 + i / 1000} for i in range(1000)]
    rows[3] |= {"status": "ERROR"}
    chosen = html.with_section(rows)
    assert {3, 999} <= chosen
    assert len(chosen) <= html.SECTIONS
    assert html.with_section(rows[:10]) == frozenset(range(10))


def test_flatten_gives_overrides():
    assert list(contents.flatten({"a": {"b": 1, "c": None}, "d": [1, 2]})) == ["a.b=1", "a.c=null", "d=[1, 2]"]
