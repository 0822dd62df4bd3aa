"""Imported by a test's server: takes a second, then leaves a file."""

import os
import time
from pathlib import Path

if "SWEEP_TEST_SERVER" in os.environ:
    time.sleep(1)
    Path(os.environ["SWEEP_TEST_FILE"]).touch()
