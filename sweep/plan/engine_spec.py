"""What an engine's process needs to know of a cell. Pure."""

from collections.abc import Sequence
from typing import Any

from sweep.config.engine import resolved_dtype
from sweep.config.feature import Feature
from sweep.config.run import RunConfig
from sweep.engines import registry
from sweep.engines.protocol import EngineSpec
from sweep.engines.registry import EngineKind
from sweep.machine.devices import Devices
from sweep.plan import features as feature_rules


def engine_spec(run: RunConfig, devices: Devices, ranks: int, gpu_ids: tuple[int, ...]) -> EngineSpec:
    """What the child needs to load this cell's engine on `ranks` devices, one of which may be for an AR stage."""
    chosen = feature_rules.parse_features(run.feature, run.engine.name)
    kind = registry.kind(run.engine.name)
    ranks -= kind.stage_devices(run)
    return EngineSpec(
        engine=run.engine.name,
        family=run.model.family,
        model=run.model.name,
        checkpoint=run.model.path or "",
        embedded=run.model.embedded,
        device=devices.kind,
        dtype=resolved_dtype(run.engine.dtype, devices.kind),
        ranks=ranks,
        threads_per_rank=run.engine.threads_per_rank,
        features=feature_rules.engine_arguments(chosen, run.engine.name),
        arguments=_arguments(run, kind, chosen, ranks),
        plugin=run.engine.plugin,
        fork=run.engine.fork,
        profile=run.profile,
        placement=run.engine.placement,
        stages=run.model.stages.given(),
        url=run.engine.url or "",
        served_model=run.engine.served_model or "",
        api_key_env=run.engine.api_key_env or "",
        serve=registry.served(run),
        collective_timeout_s=run.engine.collective_timeout_s,
        gpu_ids=gpu_ids,
    )


def _arguments(run: RunConfig, kind: EngineKind, chosen: Sequence[Feature], ranks: int) -> dict[str, Any]:
    """The engine's own options: those of the features, which engine.args overrides."""
    if kind.options is None:
        return {}
    most = kind.max_batch(run)
    batch = {} if most is None else {"max_num_seqs": most}
    return {**batch, **kind.options(chosen, ranks), **run.engine.args}
