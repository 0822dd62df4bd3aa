"""Drawing tensors and writing them: reproducible, with the requested spread, readable by the safetensors library."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from sweep.checkpoints import scaling, shards
from sweep.checkpoints.weights import Rules, Sampler, Shape

SAMPLER = Sampler(0, "cpu")


def draw(name: str, shape: Shape, rules: Rules | None = None, part: str = "dit", seed: int = 0) -> torch.Tensor:
    return Sampler(seed, "cpu").draw(part, name, shape, rules or Rules())


def test_a_tensor_depends_on_seed_part_and_name_only() -> None:
    first = draw("a.weight", (8, 8))
    draw("b.weight", (8, 8))
    assert torch.equal(first, draw("a.weight", (8, 8)))
    for other in (draw("b.weight", (8, 8)), draw("a.weight", (8, 8), part="vae"), draw("a.weight", (8, 8), seed=1)):
        assert not torch.equal(first, other)


def test_spread_follows_fan_in_and_the_last_rule_that_matches() -> None:
    rules = Rules(gains={"proj": 2.0, "proj_out": 0.5}, biases={"mod": 0.4}, norms={"norm_k": 2.5}, tables=("embed",))
    spreads = {
        ("linear.weight", (64, 400)): 1 / 20,
        ("conv.weight", (64, 4, 10, 10)): 1 / 20,
        ("proj.weight", (64, 400)): 2 / 20,
        ("proj_out.weight", (64, 400)): 0.5 / 20,
        ("embed.weight", (64, 400)): 1.0,
        ("img_mod.1.bias", (9000,)): 0.4,
    }
    for (name, shape), spread in spreads.items():
        assert draw(name, shape, rules).float().std() == pytest.approx(spread, rel=0.05), name
    constants = {("norm.weight", (9,)): 1.0, ("norm_k.weight", (9,)): 2.5, ("proj.bias", (9,)): 0.0}
    for (name, shape), value in {**constants, ("norm.gamma", (9, 1, 1)): 1.0}.items():
        assert torch.equal(draw(name, shape, rules), torch.full(shape, value, dtype=torch.bfloat16)), name


def embedding(timesteps: torch.Tensor, width: int) -> torch.Tensor:
    """diffusers' sinusoidal embedding of timesteps, as the DiTs here call it."""
    from diffusers.models.embeddings import get_timestep_embedding

    return get_timestep_embedding(timesteps, width, flip_sin_to_cos=True, downscale_freq_shift=0)


@pytest.mark.parametrize("noise", [1000.0, 0.0])
def test_timestep_layer_is_smooth_and_its_onset_fires_near_noise_only(noise: float) -> None:
    rules = Rules(reshape=scaling.timestep_shape("linear_1", noise, gain=1.3, onset=4.0))
    weight, bias = draw("linear_1.weight", (512, 256), rules), draw("linear_1.bias", (512,), rules)
    assert torch.equal(draw("linear_2.weight", (8, 8), rules), draw("linear_2.weight", (8, 8)))

    timesteps = torch.arange(0.0, 1001.0, 50.0)
    output = embedding(timesteps, 256) @ weight.float().T + bias.float()
    onset, rest = output[:, :32], output[:, 32:]
    near = (timesteps - noise).abs() < 50
    assert (onset[near] > 1).all()
    assert (onset[(timesteps - noise).abs() > 100] < 0).all()

    plain = embedding(timesteps, 256) @ draw("plain.weight", (480, 256)).float().T
    changes = [(layer[1:] - layer[:-1]).abs().mean() / layer.abs().mean() for layer in (rest, plain)]
    assert changes[0] < 0.3 < 0.5 < changes[1]
    assert rest.std() == pytest.approx(1.3 / math.sqrt(2), rel=0.2)


SHAPES: dict[str, Shape] = {"a": (4, 4), "b": (3,), "c": (10, 10), "d": (2, 2), "e": ()}


def test_shards_keep_order_and_limit() -> None:
    assert [list(shard) for shard in shards.split(SHAPES, limit=40)] == [["a", "b"], ["c"], ["d", "e"]]
    assert [list(shard) for shard in shards.split(SHAPES)] == [list(SHAPES)]


@pytest.mark.parametrize(("limit", "files"), [(40, 3), (10**9, 1)])
def test_written_files_are_what_safetensors_reads(limit: int, files: int, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    shards.write(
        tmp_path / "part", "model", SHAPES, draw, limit=limit, progress=lambda done, of: heard.append((done, of))
    )
    assert heard == [(i + 1, files) for i in range(files)]
    paths = sorted((tmp_path / "part").glob("*.safetensors"))
    read: dict[str, torch.Tensor] = {}
    for path in paths:
        with safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            read |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    assert {name: tuple(tensor.shape) for name, tensor in read.items()} == SHAPES
    assert all(torch.equal(read[name], draw(name, shape)) for name, shape in SHAPES.items())
    index = tmp_path / "part" / "model.safetensors.index.json"
    if files == 1:
        assert [path.name for path in paths] == ["model.safetensors"]
        assert not index.exists()
    else:
        data = json.loads(index.read_text())
        assert data["metadata"]["total_size"] == sum(tensor.nbytes for tensor in read.values())
        assert data["weight_map"]["c"] == "model-00002-of-00003.safetensors"
        assert set(data["weight_map"]) == set(SHAPES)


def test_a_tensor_of_the_wrong_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"torch\.float32 .*\bbfloat16\b"):
        shards.write(tmp_path, "model", SHAPES, lambda name, shape: torch.zeros(shape))
