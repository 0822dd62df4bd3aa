"""Imported by a test's server: ends it a moment later, as a crash in an extension module does."""

import os
import time

if "SWEEP_TEST_SERVER" in os.environ:
    time.sleep(0.5)
    os._exit(3)
