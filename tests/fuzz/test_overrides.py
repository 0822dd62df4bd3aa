"""Mutated command lines end with exit code 0, or with 2 and one line; `make bench` tries 500."""

from tests.fuzz import overrides


def test_whatever_is_typed_ends_with_one_line() -> None:
    assert overrides.failures(60, seed=3) == []


def test_command_lines_are_the_same_for_a_seed_and_varied() -> None:
    made = list(overrides.command_lines(60, seed=3))
    assert made == list(overrides.command_lines(60, seed=3))
    assert made != list(overrides.command_lines(60, seed=4))
    assert len({tuple(arguments) for arguments in made}) == 60


def test_what_counts_as_a_bad_end() -> None:
    good = overrides.Ended(2, "", "sweep: batch=0: must be at least 1\n")
    assert overrides.wrong(good) == ""
    for bad in (
        overrides.Ended(1, "", good.err),
        overrides.Ended(2, "", good.err * 2),
        overrides.Ended(2, "", ""),
        overrides.Ended(0, "", "Traceback (most recent call last):\n  boom"),
    ):
        assert overrides.wrong(bad)
