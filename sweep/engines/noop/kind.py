"""`noop` does nothing and generates no image: it measures the overhead of the framework itself."""

from sweep.engines.registry import EngineKind

KIND = EngineKind(engine="sweep.engines.noop.engine:NoopEngine", generates=False, serves=True)
