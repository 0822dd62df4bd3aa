"""`noop` does nothing and makes no image: it measures what the framework itself costs."""

from sweep.engines.registry import EngineKind

KIND = EngineKind(engine="sweep.engines.noop.engine:NoopEngine", generates=False)
