"""Imported by a test's server before it forks: remembers what its forks' environments say."""

import os

from sweep.engines.preimported import AFTER_FORK

SEEN: list[str | None] = []

AFTER_FORK.append(lambda: SEEN.append(os.environ.get("SWEEP_TEST_MARK")))
