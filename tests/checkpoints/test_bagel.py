"""BAGEL's files are those that vLLM-Omni's two stages read. Its classes cannot be imported here: source is compared."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from sweep.checkpoints import bagel
from sweep.checkpoints.build import build, layout_of
from sweep.checkpoints.recipe import FAMILIES, resolve
from tests.wheels import VERSIONS, wheel_source

PIPELINE = "vllm_omni/diffusion/models/bagel/pipeline_bagel.py"
every_version = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("bagel") / "tiny"
    assert build(resolve("bagel", {}, tiny=True), made, say=lambda line: None, device="cpu")
    return made


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Of one part at the real depth and widths."""
    layout = layout_of(resolve("bagel", FAMILIES["bagel"].real_layers))
    return dict(next(part.shapes for part in layout.parts if part.label == name))


def test_at_full_depth_it_has_the_published_size() -> None:
    """The real vocabulary has 152,064 words, twice in the model."""
    small = bagel.QWEN_VOCABULARY
    parameters = sum(part.parameters for part in layout_of(resolve("bagel", FAMILIES["bagel"].real_layers)).parts)
    assert (parameters + 2 * (152064 - small) * 3584) / 1e9 == pytest.approx(14.69, abs=0.01)


@every_version
def test_the_vae_is_the_one_that_vllm_omni_builds(version: str) -> None:
    """Its classes, taken out of their module, build the same names and shapes."""
    import torch

    module = ast.parse((wheel_source(version) / "vllm_omni/diffusion/models/bagel/autoencoder.py").read_text())
    plain = [node for node in module.body if isinstance(node, ast.ClassDef) and "Distributed" not in node.name]
    pipeline = ast.parse((wheel_source(version) / PIPELINE).read_text())
    sizes = [node for node in pipeline.body if getattr(node, "name", "") == "default_ae_params"]
    scope: dict[str, Any] = {"torch": torch, "nn": torch.nn, "Tensor": torch.Tensor, "dataclass": lambda cls: cls}
    scope["dataclass"] = __import__("dataclasses").dataclass
    exec(compile(ast.Module([*plain, *sizes], []), "autoencoder", "exec"), scope)
    with torch.device("meta"):
        built = scope["AutoEncoder"](scope["default_ae_params"]())
    assert shapes("vae") == {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}


def test_the_vision_tower_is_siglip() -> None:
    import torch
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(**bagel.vision_config(bagel.VISION, 26))
    with torch.device("meta"):
        built = SiglipVisionModel(config).state_dict()
    wanted = {name.removeprefix("vision_model."): tuple(tensor.shape) for name, tensor in built.items()}
    mine = bagel.vision_shapes(bagel.VISION, 26)
    rows = wanted.pop("embeddings.patch_embedding.weight")
    assert mine.pop("embeddings.patch_embedding.weight") == (rows[0], rows[1] * rows[2] * rows[3])
    assert mine == {name: shape for name, shape in wanted.items() if not name.startswith("head.")}


FUSED = {  # of a layer of vLLM-Omni's DiT: what is stacked of the checkpoint's tensors
    "self_attn.qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attn.qkv_proj.gen_exp": ("self_attn.q_proj_moe_gen", "self_attn.k_proj_moe_gen", "self_attn.v_proj_moe_gen"),
    "self_attn.o_proj": ("self_attn.o_proj",),
    "self_attn.o_proj.gen_exp": ("self_attn.o_proj_moe_gen",),
    "mlp.gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.down_proj": ("mlp.down_proj",),
    "mlp_moe_gen.gate_up_proj": ("mlp_moe_gen.gate_proj", "mlp_moe_gen.up_proj"),
    "mlp_moe_gen.down_proj": ("mlp_moe_gen.down_proj",),
}


@every_version
def test_every_tensor_of_a_layer_has_a_place_in_the_dit_stage(version: str) -> None:
    """Names are mapped as `load_weights` of vLLM-Omni's language model does."""
    text = (wheel_source(version) / "vllm_omni/diffusion/models/bagel/bagel_transformer.py").read_text()
    stacked = literal(text, "stacked_params_mapping")
    direct = literal(text, "direct_remap")
    found: dict[str, set[str]] = {}
    for name in bagel.layer_shapes(bagel.LLM):
        whole = f"layers.0.{name}"
        old, new = next(((o, n) for o, n in direct if o in whole), ("", ""))
        if not old:
            new, old = next(((n, o) for n, o, _ in stacked if o in whole), ("", ""))
        placed = (whole.replace(old, new) if old else whole).removeprefix("layers.0.")
        found.setdefault(re.sub(r"\.(weight|bias)$", "", placed), set()).add(re.sub(r"\.(weight|bias)$", "", name))
    assert {key: set(parts) for key, parts in FUSED.items()} == {key: found[key] for key in FUSED}
    norms = {"input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"}
    rest = set(found) - set(FUSED)
    assert rest == norms | {f"{norm}.gen_weight" for norm in norms}


def literal(text: str, name: str) -> Any:
    """The list that the source assigns to this name first."""
    nodes = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Assign))
    return next(ast.literal_eval(one.value) for one in nodes if getattr(one.targets[0], "id", "") == name)


@every_version
def test_names_outside_of_the_layers_are_those_that_the_stages_look_for(version: str) -> None:
    dit = (wheel_source(version) / PIPELINE).read_text()
    transformer = (wheel_source(version) / "vllm_omni/diffusion/models/bagel/bagel_transformer.py").read_text()
    ar = (wheel_source(version) / "vllm_omni/model_executor/models/bagel/bagel.py").read_text()
    tops = {name.partition(".")[0] for name in shapes("stack")}
    assert tops == {
        *("language_model", "vit_model", "connector", "vit_pos_embed", "latent_pos_embed", "time_embedder"),
        *("vae2llm", "llm2vae"),
    }
    for top in tops - {"language_model", "vit_model"}:
        assert f"self.{top} = " in transformer
        assert f'"{top}."' in dit or top in ("llm2vae",)
    for top in ("latent_pos_embed", "time_embedder", "vae2llm"):
        assert f"self.{top} = " in ar
    assert 'name.startswith("encoder.") or name.startswith("decoder.")' in dit
    assert '"llm_config.json"' in dit
    assert '"vit_config.json"' in dit
    assert 'index_path = p / "model.safetensors.index.json"' in ar
    assert '_tok.convert_tokens_to_ids("<|fim_middle|>")' in ar


def test_the_files_of_a_checkpoint(folder: Path) -> None:
    from transformers import AutoTokenizer, Qwen2Config, SiglipVisionConfig

    names = {path.name for path in folder.iterdir()}
    assert {"ema.safetensors", "ae.safetensors", "config.json", "llm_config.json", "vit_config.json"} <= names
    assert "model_index.json" not in names
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert index["latent_pos_embed.pos_embed"] == "ema.safetensors"
    assert index["decoder.conv_in.weight"] == "ae.safetensors"
    config = json.loads((folder / "config.json").read_text())
    assert Qwen2Config.from_json_file(folder / "llm_config.json").num_hidden_layers == 2
    assert SiglipVisionConfig.from_json_file(folder / "vit_config.json").vision_use_head is False
    assert config["llm_config"] == json.loads((folder / "llm_config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer.convert_tokens_to_ids(token) for token in bagel.SPECIALS]
    assert ids == list(range(len(bagel.SPECIALS)))
    assert tokenizer("<|im_start|>a fox<|im_end|>")["input_ids"][:: len(tokenizer("a fox")["input_ids"]) + 1] == [1, 2]
    assert len(tokenizer) <= config["llm_config"]["vocab_size"]


def test_a_special_token_is_never_the_likeliest(folder: Path) -> None:
    from safetensors import safe_open

    with safe_open(folder / "ema.safetensors", "pt") as file:
        head = file.get_tensor("language_model.lm_head.weight")
    assert not head[: len(bagel.SPECIALS)].any()
    assert head[len(bagel.SPECIALS) :].std() > 0.1
