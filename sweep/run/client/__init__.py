"""The load generator: a process of its own that sends requests when they are due and times what comes back.

Knows nothing of cells, engines or verdicts. `messages` crosses the process boundary, `process` is its other side.
"""
