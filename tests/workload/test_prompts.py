"""Which prompts a workload has, and what is said about a file that cannot be used."""

import json
import re
from pathlib import Path

import pytest

from sweep.config.workload import Workload
from sweep.refusals import ConfigError
from sweep.workload.prompts import estimate_tokens, load_prompts, shipped_prompts, shipped_rows


def workload_of(tmp_path: Path, name: str, content: bytes | str) -> Workload:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Workload(prompts=str(path), num_prompts=100)


def error_of(workload: Workload) -> str:
    with pytest.raises(ConfigError) as caught:
        load_prompts(workload)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "prompt", ["", "a" * 10_000, "🦊👩‍🚀🏳️‍🌈", "قطة نائمة على سجادة", "猫\u2028狗", "two\nlines", "  spaces  "]
)
def test_one_given_prompt_is_used_as_it_is(prompt: str) -> None:
    assert load_prompts(Workload(prompt=prompt, prompts="missing.txt")) == [prompt]


def test_bytes_of_the_command_line_that_are_no_text_are_refused() -> None:
    assert "UTF-8" in error_of(Workload(prompt=b"caf\xe9".decode("utf-8", "surrogateescape")))


def test_text_file_has_one_prompt_a_line_without_blank_ones(tmp_path: Path) -> None:
    content = "\ufeffa fox\r\n\r\n   \n两只猫 \nline\u2028separator stays\n"
    assert load_prompts(workload_of(tmp_path, "p.txt", content)) == ["a fox", "两只猫", "line\u2028separator stays"]


def test_json_lines_have_prompt_or_text(tmp_path: Path) -> None:
    content = '{"prompt": "a", "text": "not this"}\n\n{"id": 1, "text": "b"}\n{"prompt": ""}'
    assert load_prompts(workload_of(tmp_path, "P.JSONL", content)) == ["a", "b", ""]


def test_no_more_than_num_prompts(tmp_path: Path) -> None:
    workload = workload_of(tmp_path, "p.txt", "a\nb\nc")
    workload.num_prompts = 2
    assert load_prompts(workload) == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('{"title": "a"}', '"text"'),
        ('{"prompt": 7}', '"prompt"'),
        ('{"prompt": null}', '"prompt"'),
        ('"a"', "JSON"),
        ("a fox", "JSON"),
        ('{"prompt": "\\ud800"}', "Unicode"),
        ("[" * 100_000, "JSON"),
    ],
)
def test_bad_json_line_is_named_by_its_number(tmp_path: Path, line: str, named: str) -> None:
    message = error_of(workload_of(tmp_path, "p.jsonl", '{"prompt": "good"}\n\n' + line))
    assert "p.jsonl, line 3:" in message
    assert named in message


@pytest.mark.parametrize(
    ("name", "content", "use"),
    [
        ("p.txt", "", "prompt"),
        ("p.txt", " \n\t\n", "prompt"),
        ("p.jsonl", "\n", "prompt"),
        ("p.txt", "café".encode("latin-1"), "UTF-8"),
        ("p.parquet", "a", ".jsonl"),
        ("p.csv", "a", "workload.prompts_column="),
    ],
)
def test_unusable_file_is_refused_with_what_to_do(tmp_path: Path, name: str, content: bytes | str, use: str) -> None:
    message = error_of(workload_of(tmp_path, name, content))
    assert f"workload.prompts={tmp_path / name}:" in message
    assert use in message.partition("; ")[2], "what to do"


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    impossible = ("a\0b.txt", "x" * 5000 + ".txt")  # the operating system refuses to look
    for name in (str(tmp_path / "nowhere.txt"), str(tmp_path), *impossible):
        assert error_of(Workload(prompts=name)).startswith(f"workload.prompts={name}:")


def test_shipped_prompts_cover_both_languages_and_sets() -> None:
    rows = shipped_rows()
    assert len({row["id"] for row in rows}) == len({row["text"] for row in rows}) == len(rows)
    short = [row for row in rows if row["set"] == "short"]
    assert [row["lang"] for row in short] == ["en", "zh"] * 10  # so that four prompts are two of each
    assert all(len(row["text"]) < 200 for row in short)
    long = {(row["lang"], row["tokens"]) for row in rows if row["set"] == "long"}
    assert long == {(lang, tokens) for lang in ("en", "zh") for tokens in (512, 1024, 2048, 2560)}


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_some_short_prompts_quote_text_to_render(lang: str) -> None:
    quoted = [row for row in shipped_rows() if row["lang"] == lang and re.search(r'"[^"]+"|“[^”]+”', row["text"])]
    assert len([row for row in quoted if row["set"] == "short"]) >= 4


@pytest.mark.parametrize("row", [r for r in shipped_rows() if r["set"] == "long"], ids=lambda r: r["id"])
def test_long_prompt_has_its_length_and_never_repeats_a_sentence(row: dict) -> None:
    assert estimate_tokens(row["text"]) == pytest.approx(row["tokens"], rel=0.02)
    sentences = [s.strip() for s in re.split(r"[.!?]\s|。", row["text"]) if s.strip()]
    assert len(sentences) == len(set(sentences)) > 8
    ideographs = len(re.findall(r"[\u4e00-\u9fff]", row["text"]))
    assert ideographs > 0.8 * len(row["text"]) if row["lang"] == "zh" else ideographs == 0


def test_mixed_set_takes_turns_and_loses_none() -> None:
    short, long, mixed = (shipped_prompts(name) for name in ("short", "long", "mixed"))
    assert mixed[:4] == [short[0], long[0], short[1], long[1]]
    assert sorted(mixed) == sorted(short + long)
    assert load_prompts(Workload(prompt_set="mixed", num_prompts=3)) == [short[0], long[0], short[1]]


def test_estimated_tokens() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens("one two three") == pytest.approx(3.9)
    assert estimate_tokens("三只小猫，") == pytest.approx(5 / 1.5)
    assert estimate_tokens("画 fox 狐狸") == pytest.approx(3 / 1.5 + 1.3)


def test_shipped_file_is_utf8_that_people_can_read() -> None:
    path = Path(load_prompts.__code__.co_filename).parent / "prompts.jsonl"
    text = path.read_text(encoding="utf-8")
    assert "\\u" not in text
    assert all(json.loads(line)["text"] in line.replace('\\"', '"') for line in text.splitlines())
