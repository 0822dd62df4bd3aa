"""Stored JSON is what Python's own reader makes of it, whichever reader is the faster one."""

import json
import re

import pytest

from sweep.results.files import DEEPEST, parsed
from sweep.results.records import RunResult

TEXTS = (
    '{"a": [1, -0.0, 1e-320, "é", null]}',
    "[NaN, -Infinity, 1e999]",
    r'["\ud800"]',
    '\ufeff{"a": 1, "a": 2}',
    "-0",
)
WRONG = ("", "[1,]", "01", '"\t"', "{} {}")


@pytest.mark.parametrize("text", TEXTS)
def test_what_json_reads_is_read_alike(text: str) -> None:
    assert repr(parsed(text.encode())) == repr(json.loads(text.removeprefix("\ufeff")))


@pytest.mark.parametrize("text", WRONG)
def test_what_json_refuses_is_refused_in_its_words(text: str) -> None:
    with pytest.raises(json.JSONDecodeError) as found:
        json.loads(text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(found.value))}$"):
        parsed(text.encode())


def test_long_integers_and_deep_nesting_are_refused() -> None:
    levels = DEEPEST - 1
    assert parsed(b"[" * levels + b"9223372036854775807" + b"]" * levels)
    for text in ("[" * DEEPEST + "]" * DEEPEST, "[" * 5000 + "]" * 5000):
        with pytest.raises(ValueError, match="nested too deeply"):
            parsed(text.encode())
    with pytest.raises(ValueError, match="more than 64 bits"):
        parsed(b'{"a": [9223372036854775808]}')


def test_a_result_of_brackets_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected `object`, got `array`"):
        RunResult.from_bytes(b"[" * 100_000)
