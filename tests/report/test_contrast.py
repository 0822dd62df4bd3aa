"""Texts of the page have a contrast of at least 4.5 : 1 on what lies behind them, light and dark."""

import re
from importlib import resources

import pytest

from sweep.report.page.matrix_view import STEPS
from sweep.report.page.oklab import contrast

ENOUGH = 4.5  # WCAG 2.1, 1.4.3
CSS = resources.files("sweep.report.page").joinpath("report.css").read_text(encoding="utf-8")
FIELDS = [f"s{step}" for step in range(-STEPS, STEPS + 1)]
PAIRS = [
    *((text, back) for text in ("ink", "soft", "link", "warn") for back in ("paper", "panel")),
    *((tone, f"{tone}-bg") for tone in ("good", "warn", "bad")),
    *(("soft", "skip-bg"), ("ink", "skip-bg"), ("ink", "warn-bg"), ("bad", "paper"), ("good", "paper")),
    *(("ink", field) for field in FIELDS),
]


def colours(dark: bool) -> dict[str, str]:
    """Variables of one scheme."""
    light, _, rest = CSS.partition("@media (prefers-color-scheme: dark)")
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6,8});", light.partition("*")[0]))
    return found | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6,8});", rest.partition("*")[0])) if dark else found


def over(top: str, back: str) -> str:
    """A colour with alpha on another."""
    alpha = int(top[7:9], 16) / 255
    mixed = (round(alpha * int(top[i : i + 2], 16) + (1 - alpha) * int(back[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{value:02x}" for value in mixed)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("text", "back"), PAIRS)
def test_a_text_reads_on_its_background(text, back, dark):
    found = colours(dark)
    assert contrast(found[text], found[back]) >= ENOUGH


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("field", FIELDS)
def test_a_number_reads_on_a_hatched_field(field, dark):
    found = colours(dark)
    assert contrast(found["ink"], over(found["hatch"], found[field])) >= ENOUGH


def test_the_dark_scheme_has_every_colour_of_its_own():
    light, dark = colours(dark=False), colours(dark=True)
    assert len(light) > 20
    assert all(light[name] != dark[name] for name in light)
