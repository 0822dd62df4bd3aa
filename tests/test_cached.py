"""A cached value is computed once, on first access, also in a frozen dataclass."""

from dataclasses import dataclass, field

from sweep.cached import cached_property


@dataclass(frozen=True)
class Counted:
    asked: list[str] = field(default_factory=list)

    @cached_property
    def value(self) -> int:
        """How often it was asked for."""
        self.asked.append("value")
        return len(self.asked)


def test_a_cached_value_is_computed_once() -> None:
    one, other = Counted(), Counted()
    assert not one.asked
    assert (one.value, one.value, other.value) == (1, 1, 1)
    assert one.asked == ["value"]
    assert Counted.value.__doc__ == "How often it was asked for."
