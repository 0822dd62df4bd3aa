"""Tests, and what they share. Imported before all of them, so that numpy is not imported yet."""

import os

# Read when numpy is imported, here and by every command. With more, the threads of a small matrix product wait for each
# other four times as long as one computes, and longer while other tests run.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
