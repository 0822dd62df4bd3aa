"""What carries the output of a stage to the next one, as vLLM-Omni names it in a deploy file. Names only.

vLLM-Omni hands tokens and prompts over in its orchestrator. A connector carries what is too large for that, such as
a KV cache; `families.CONNECTED` lists the families that hand over one.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Connector:
    """One kind."""

    name: str  # in vLLM-Omni's OmniConnectorFactory
    module: str = ""  # module that it imports and vLLM-Omni does not install; "" for none
    on: str = ""  # the only devices that it runs on; "" for CUDA GPUs too
    extra: dict[str, Any] = field(default_factory=dict)  # its options


_RDMA: dict[str, Any] = {"host": "auto", "zmq_port": 50051}
_RDMA_OF_MOONCAKE = _RDMA | {"protocol": "rdma"}
"""As vLLM-Omni's own deploy files have it."""

CONNECTORS = {
    "shared_memory": Connector("SharedMemoryConnector"),
    "mooncake_store": Connector("MooncakeStoreConnector", "mooncake"),
    "mooncake_transfer_engine": Connector("MooncakeTransferEngineConnector", "mooncake", extra=_RDMA_OF_MOONCAKE),
    "mori_transfer_engine": Connector("MoriTransferEngineConnector", "mori", extra=_RDMA),
    "yuanrong": Connector("YuanrongConnector", "datasystem"),
    "yuanrong_transfer_engine": Connector("YuanrongTransferEngineConnector", on="Ascend NPUs", extra=_RDMA),
}
"""By their names in sweep.config.stages.CONNECTORS."""


@dataclass(frozen=True)
class Edge:
    """A connector from stage 0 to stage 1, as parts of a deploy file."""

    defined: dict[str, Any] = field(default_factory=dict)  # next to `stages`
    sender: dict[str, Any] = field(default_factory=dict)  # of stage 0
    receiver: dict[str, Any] = field(default_factory=dict)  # of stage 1


def edge(name: str) -> Edge:
    """The link of a connector; empty for ""."""
    if not name:
        return Edge()
    chosen = CONNECTORS[name]
    body: dict[str, Any] = {"name": chosen.name, **({"extra": dict(chosen.extra)} if chosen.extra else {})}
    return Edge(
        {"connectors": {name: body}},
        {"output_connectors": {"to_stage_1": name}},
        {"input_connectors": {"from_stage_0": name}},
    )
