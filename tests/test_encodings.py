"""No text is read or written in the encoding of the locale, which differs from machine to machine."""

import ast
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, environment, sweep_command, to_run

PACKAGES = ("sweep", "profiling", "hydra_plugins")
SUBPROCESS = ("run", "Popen", "check_output")


def without_encoding(source: str) -> Iterator[int]:
    """Lines of calls that read, write or open text and leave the encoding to the locale."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and _is_text(node) and not {"encoding", None} & {k.arg for k in node.keywords}:
            yield node.lineno


def _is_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("read_text", "write_text"):
        return len(call.args) < (1 if name == "read_text" else 2)
    if name in ("open", "fdopen"):
        owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
        if owner in ("Image", "PIL.Image") or (owner == "os" and name == "open"):
            return False
        given = [*call.args, *(k.value for k in call.keywords if k.arg == "mode")]
        modes = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        return not any("b" in mode for mode in modes)
    return any(k.arg in ("text", "universal_newlines") for k in call.keywords) and name in SUBPROCESS


def test_every_text_has_an_encoding() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 150
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in files
        for line in without_encoding(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("path.read_text()", 1),
        ("path.read_text(encoding='utf-8') + path.read_text('utf-8')", 0),
        ("path.write_text(text)", 1),
        ("path.write_text(text, encoding='utf-8')", 0),
        ("open(name)", 1),
        ("path.open('a')", 1),
        ("path.open('rb') and open(name, mode='wb')", 0),
        ("os.open(name, os.O_RDONLY) and Image.open(name)", 0),
        ("subprocess.run(command, text=True)", 1),
        ("subprocess.run(command, text=True, encoding='utf-8')", 0),
    ],
)
def test_what_leaves_it_to_the_locale_is_noticed(source: str, count: int) -> None:
    assert len(list(without_encoding(source))) == count


@pytest.fixture(scope="module")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of locales that few machines have, compiled from what glibc ships as text."""
    folder = tmp_path_factory.mktemp("locales")
    for name, (language, charmap) in COMPILED.items():
        command = ["localedef", "--no-archive", "-i", language, "-f", charmap, str(folder / name)]
        if shutil.which("localedef") is None or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip(f"localedef cannot make {name} here")
    return folder


COMPILED = {"de_DE.ISO-8859-1": ("de_DE", "ISO-8859-1"), "zh_CN.GBK": ("zh_CN", "GBK")}


@pytest.mark.parametrize("name", ["C", *COMPILED])
def test_files_are_utf_8_and_reruns_keep_everything_in_any_locale(
    sweep, tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    variables = {"LC_ALL": name, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    if name in COMPILED:
        variables["LOCPATH"] = str(request.getfixturevalue("locales"))
    text = "一只猫" if name != "de_DE.ISO-8859-1" else "Käse"
    encoding = {"de_DE.ISO-8859-1": "latin-1", "zh_CN.GBK": "gbk"}.get(name, "utf-8")
    arguments = ("engine=noop", "workload.num_prompts=1", "workload.repeats=1", "plots=false", "aa=0")
    swept = f"workload.prompt='{text}','a cat'"
    given = ["-m", *arguments, f"hydra.sweep.dir={tmp_path}"]
    kept = []
    for _ in range(2):
        command = [*sweep_command(*given), swept.encode(encoding)]
        done = subprocess.run(command, env=environment() | variables, capture_output=True, timeout=240)
        assert done.returncode == 0, done.stderr
        kept.append(to_run(done.stdout.decode(encoding)))
    usual = sweep(*given, swept)
    assert usual.code == 0, usual.err
    kept.append(to_run(usual.out))
    assert kept == [(2,), (0, 2), (0, 2)]
    plan = json.loads((tmp_path / "plan.json").read_text(encoding="utf-8"))
    assert {cell["config"]["workload"]["prompt"] for cell in plan["cells"]} == {text, "a cat"}
    results = [path.read_text(encoding="utf-8") for path in tmp_path.glob("*/result.json")]
    assert sum(text in result for result in results) == 1
    assert text in (tmp_path / "summary.csv").read_text(encoding="utf-8")
    assert text in (tmp_path / "manifest.json").read_text(encoding="utf-8")
