"""What is read back from a loaded pipeline: its blocks, weights held elsewhere, what was compiled; on a CPU."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from observed import ALL, count, run  # noqa: E402
from omni_doubles import BLOCKS, IMAGE_TOKENS, Batch, Block, Here, Pipeline, Transformer  # noqa: E402

from profiling.vllm_plugin import pipeline_facts  # noqa: E402
from profiling.vllm_plugin.record_files import DitRecord  # noqa: E402


def test_blocks_of_an_unknown_transformer_are_its_longest_list() -> None:
    class Unknown(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([Block() for _ in range(4)])
            self.outputs = torch.nn.ModuleList([torch.nn.Linear(2, 2) for _ in range(2)])

    found = pipeline_facts.blocks(Unknown())
    assert found.count == 4
    assert [type(block) for block in found.main] == [Block]


def test_blocks_are_found_under_a_class_that_fsdp_made_up() -> None:
    transformer = Transformer()
    for block in transformer.transformer_blocks:
        block.__class__ = type("FSDPBlock", (type("FSDPModule", (), {}), Block), {})
    del Transformer._layerwise_offload_blocks_attrs
    try:
        found = pipeline_facts.blocks(transformer)
    finally:
        Transformer._layerwise_offload_blocks_attrs = ["transformer_blocks"]
    assert found.count == ALL


def test_weights_that_layerwise_offload_keeps_elsewhere_are_still_held() -> None:
    transformer = Transformer()
    whole = pipeline_facts.held(transformer)
    first, second = transformer.transformer_blocks[:2]
    parameters = dict(second.named_parameters())
    rows = [{"name": name, "numel": parameter.numel()} for name, parameter in parameters.items()]
    hook = type("Hook", (), {"next_block_parameters": parameters, "dtype_metadata": {torch.float32: rows}})
    first._hook_registry = type("Registry", (), {"_hooks": {"layerwise_offload": hook}})
    for parameter in parameters.values():
        parameter.data = torch.empty(0)
    assert pipeline_facts.held(transformer) == whole
    resident = pipeline_facts.resident(transformer.parameters(), "cpu")
    assert whole - resident == sum(row["numel"] for row in rows), "which is offloaded"


def as_if_compiled(function: Any) -> Any:
    """Looks as what torch.compile returns; compiles nothing."""

    @functools.wraps(function)
    def compiled(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    compiled._torchdynamo_orig_callable = function  # type: ignore[attr-defined]
    return compiled


def check_compiled(here: Here, granularity: str, compiler: Callable[[Any], Any]) -> DitRecord:
    """A request on a transformer that was compiled as vLLM-Omni does it, before we came."""
    pipeline = Pipeline()
    transformer = pipeline.transformer
    if granularity == "full":
        transformer._compiled_call_impl = compiler(transformer._call_impl)
    else:
        for block in transformer.transformer_blocks:
            block.forward = compiler(block.forward)
    record = run(here, pipeline, Batch(steps=2))
    evidence = record.evidence
    assert evidence.settings["compiled"] == granularity
    assert evidence.settings["attention_layers"] == "TORCH_SDPA:1"  # no wrapper inside what is compiled
    assert evidence.dit_forwards == count(record)["dit_forward"] == 4
    if granularity == "full":
        assert (evidence.blocks_run, evidence.blocks_skipped, evidence.settings["dit_blocks"]) == (0, 0, "unknown")
        assert (evidence.counts["whole_model_compiled"], evidence.counts["compiled_modules"]) == (1, 1)
    else:
        assert (evidence.blocks_run, evidence.block_sequence) == (4 * ALL, IMAGE_TOKENS)
        assert (evidence.counts["whole_model_compiled"], evidence.counts["compiled_modules"]) == (0, BLOCKS)
    return record


@pytest.mark.parametrize("granularity", ["regional", "full"])
def test_compiled_transformers(here: Here, granularity: str) -> None:
    check_compiled(here, granularity, as_if_compiled)


@pytest.mark.bench  # torch.compile takes seconds to be imported
@pytest.mark.parametrize("granularity", ["regional", "full"])
def test_really_compiled_transformers(here: Here, granularity: str) -> None:
    record = check_compiled(here, granularity, functools.partial(torch.compile, backend="eager", fullgraph=True))
    assert record.evidence.counts["compiled_graphs"] > 0
