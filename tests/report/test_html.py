"""The page: self-contained, escaped, and complete."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

from sweep.report.html import EMBED_BYTES, IMAGES_PER_CELL, PREVIEW_PIXELS, CellView, ReportContext, render
from sweep.report.plots import draw_all
from tests.report import shapes

NASTY = "<script>alert(1)</script> \"'&amp; </figcaption>"


class Page(HTMLParser):
    """What a browser would see: tags, attributes, text; fails on tags that are not closed in order."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.sources, self.links, self.words, self.open, self.ids = [], [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.sources += [values[name] for name in ("src", "srcset") if name in values]
        self.links += [values["href"]] if "href" in values else []
        self.ids += [values["id"]] if "id" in values else []
        assert not any(name.startswith("on") for name in values)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def image(tmp_path):
    def save(name, side=16):
        pixels = np.random.default_rng(len(name)).integers(0, 256, size=(side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        return tmp_path / name

    return save


def context(cells=(), plots=(), **fields):
    return ReportContext(**{"title": "Sweep", "meta": {}, "cells": cells, "plots": plots, **fields})


def test_everything_from_outside_is_escaped(image):
    row = shapes.row("teacache", evidence=NASTY, bottleneck=NASTY, invalid_reason=NASTY)
    view = CellView(NASTY, NASTY, NASTY, row, (NASTY,), (image("a.png"),), (image("b.png"),))
    page = Page(render(context([view], title=NASTY, meta={NASTY: NASTY, "command": NASTY}, note=NASTY)))
    assert "script" not in page.tags
    assert page.text.count("<script>alert(1)</script>") >= 10
    assert "&lt;" not in page.text  # not escaped twice either


def test_the_page_needs_no_network_and_no_other_file(tmp_path, image):
    pictures = draw_all(pandas.DataFrame(shapes.one_cell()), tmp_path / "plots")
    view = CellView("teacache b1", "PASS", "", shapes.row("teacache"), ("a cat",), (image("a.png"),), (image("b.png"),))
    text = render(context([view], pictures))
    page = Page(text)
    assert len(page.sources) == 2 + len(pictures) / 2  # each plot once
    assert all(source.startswith("data:image/") for source in page.sources)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    assert not re.search(r"@import|url\(", text.split("<body>")[0])


def test_embedded_images_are_the_files(image):
    view = CellView("a", "PASS", images=(image("cell.png"),), baseline_images=(image("baseline.png"),))
    sources = Page(render(context([view]))).sources
    content = [base64.b64decode(source.split(",", 1)[1]) for source in sources]
    assert content == [image("baseline.png").read_bytes(), image("cell.png").read_bytes()]  # baseline on the left


def test_a_large_image_is_embedded_as_a_preview(image):
    large = image("large.png", side=1024)
    assert large.stat().st_size > EMBED_BYTES
    (source,) = Page(render(context([CellView("a", "PASS", images=(large,))]))).sources
    with Image.open(io.BytesIO(base64.b64decode(source.split(",", 1)[1]))) as preview:
        assert max(preview.size) == PREVIEW_PIXELS
        assert preview.format == "JPEG"


def test_cells_status_reason_phases_and_evidence_are_told(image):
    views = [CellView(r["cell"], r["status"], r["reason"], r) for r in shapes.with_errors()]
    page = Page(render(context(views, note="Random weights: pictures mean nothing.", meta={"machine": "2 cores"})))
    for expected in (
        *(view.label for view in views),
        *(view.reason for view in views),
        *("Random weights: pictures mean nothing.", "2 cores", "2 ranks, 8 DiT forwards each", "4 PASS", "1 SKIP"),
        *("ar_decode 310 ms (42.0 %)", "denoise_step 53%", "0.739", "identical"),
    ):
        assert expected in page.text
    assert "None" not in page.text
    assert "nan" not in page.text.split()
    assert "dit_forward" not in page.text


def test_what_is_missing_becomes_a_placeholder(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"x" * (EMBED_BYTES + 1))
    view = CellView("a", "PASS", "", {}, ("p", "q"), (tmp_path / "gone.png", tmp_path / "broken.png"), (None, None))
    page = Page(render(context([view], [Path("gone/speedup.png")])))
    assert page.text.count("no image") == 2
    assert page.text.count("no baseline image") == 2
    assert "plot speedup is missing" in page.text
    assert page.sources == []


def test_images_left_out_are_counted(image):
    files = tuple(image(f"{i}.png") for i in range(IMAGES_PER_CELL + 3))
    page = Page(render(context([CellView("a", "PASS", images=files)])))
    assert len(page.sources) == IMAGES_PER_CELL
    assert "3 more are in the cell's folder." in page.text


def test_prompts_of_any_script_and_length():
    prompts = ("", "字" * 10_000, "🦊 שלום مرحبا", "lone \ud800 surrogate")
    view = CellView("a", "PASS", prompts=prompts, images=(None,) * 4)
    text = render(context([view]))
    assert prompts[1] in text
    assert prompts[2] in text
    text.encode("utf-8")


def test_an_empty_sweep_is_a_page():
    assert "No cells." in Page(render(context())).text
