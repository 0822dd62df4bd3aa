"""An engine served over HTTP from its own process: a queue, dynamic batching, OpenAI's image and text endpoints.

Serves any engine of `sweep.engines.protocol`. Knows nothing of cells, loads or clients.
"""
