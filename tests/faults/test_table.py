"""docs/faults.md and the fault tests name each other."""

import re

from tests.conftest import ROOT

TABLE = (ROOT / "docs" / "faults.md").read_text()
TESTS = "\n".join(
    path.read_text() for path in (*(ROOT / "tests" / "faults").glob("test_*.py"), ROOT / "tests/gpu/test_faults.py")
)
OTHERS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))


def test_every_row_names_tests_that_exist() -> None:
    rows = [line for line in TABLE.splitlines() if line.startswith("| ") and not line.startswith("| what happens")]
    assert len(rows) > 25
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named or row.rstrip().endswith("| the same |"), row
        for name in named:
            assert f"def {name}(" in TESTS + OTHERS, name


def test_every_fault_test_is_in_the_table() -> None:
    known = set(re.findall(r"^def (test_\w+)\(", TESTS, re.MULTILINE))
    named = set(re.findall(r"`(test_\w+)`", TABLE))
    own = {"test_every_row_names_tests_that_exist", "test_every_fault_test_is_in_the_table"}
    assert sorted(known - named - own) == []
