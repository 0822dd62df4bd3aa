"""Which attention back end the DiT really called: counts of calls, by name in diffusers' registry.

A back end that was set but is never used leaves the counts unchanged. Wraps the registry's functions
in this process; knows nothing of who chose a back end.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

from sweep.engines.diffusers.step_clock import StepClock


class AttentionCounters:
    """Calls within DiT forwards since `reset`. Create it after every feature has been applied."""

    def __init__(self, clock: StepClock) -> None:
        self.clock = clock
        self.calls: Counter[str] = Counter()
        for name, function in list(_AttentionBackendRegistry._backends.items()):
            _AttentionBackendRegistry._backends[name] = self._counted(name, function)

    def reset(self) -> None:
        """Start a request."""
        self.calls.clear()

    def describe(self) -> str:
        """Names of the back ends that were called, `native` or `_native_math,flash`; "" when none was."""
        return ",".join(sorted(self.calls))

    def _counted(self, name: AttentionBackendName, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.clock.in_branch:
                self.calls[name.value] += 1
            return function(*args, **kwargs)

        return counted
