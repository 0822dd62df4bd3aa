"""Effects, one sweep at a time: engines, measurements, progress, Ctrl-C."""
