"""`python -m sweep.predict OVERRIDES`: an answer without a GPU, or one line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweep.asked import asked
from sweep.checkpoints.build import build
from sweep.checkpoints.recipe import resolve
from sweep.config.feature import Feature
from sweep.engines.diffusers.tiny_models.checkpoints import ensure_checkpoint
from sweep.predict import decoder, dit, shapes, vae
from sweep.predict.effects import merged
from sweep.predict_cells import predictions
from sweep.refusals import ConfigError
from tests.conftest import Finished, environment, finished

QWEN = ("model=qwen_image", "engine=vllm_omni", "workload=image_1024", "hardware=h200")


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that nothing was measured or calibrated on."""
    monkeypatch.setenv("SWEEP_CACHE", str(tmp_path / "cache"))


def predict(folder: Path, *arguments: str) -> Finished:
    return finished("sweep.predict", list(arguments), folder)


def predicted(*overrides: str) -> dict[str, Any]:
    """Predictions by label, in this process."""
    return {row.label: row.prediction or row.skip for row in predictions(asked(overrides))}


def test_an_ar_stage_writes_in_as_many_rounds_as_it_must() -> None:
    glm = (*(one for one in QWEN if not one.startswith("model=")), "model=glm_image", "batch=4")
    found = predicted(*glm, "model.stages.ar.max_num_seqs=1,2,3,4,8").values()
    decode = [next(phase.seconds for phase in one.phases if phase.phase.name == "ar_decode") for one in found]
    assert decode[0] / decode[3] == pytest.approx(4, rel=0.02), "weights are read for each token of each request"
    assert decode[1] / decode[3] == pytest.approx(2, rel=0.02)
    assert decode[2] == pytest.approx(decode[1])
    assert decode[4] == decode[3]


def test_one_configuration_is_told_whole(tmp_path: Path) -> None:
    done = predict(tmp_path, *QWEN)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("baseline b1 on 1 × h200: ")
    for said in (
        "of what the hardware allows",
        "fits",
        "DiT, all steps",
        "dit weights",
        "counted",
        "data sheet",
        "fitted",
    ):
        assert said in done.out
    assert "fitted on these sweeps: how much of them is reached" in done.out
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_a_command_line_of_a_sweep_is_predicted_as_it_is(tmp_path: Path) -> None:
    done = predict(tmp_path, "-m", "+study=vllm_compat", "parallel=x4", "hardware=h200", "batch=1,4", "--json")
    assert done.code == 0, done.err
    cells = json.loads(done.out)["cells"]
    labels = [cell["cell"] for cell in cells]
    assert {"baseline b1", "cfg_parallel+teacache b4", "tp+ulysses b4"} <= set(labels)
    skipped = {cell["cell"]: cell["skip"] for cell in cells if "skip" in cell}
    assert skipped["cache_dit+teacache b1"] == "cache_dit conflicts with teacache"
    assert len(labels) == len(set(labels)) == 2 * 22


@pytest.mark.parametrize(
    ("given", "said"),
    {
        "workload.width=-64": "workload.width=-64: must be at least 1",
        "workload.width=1000": "workload.width=1000: qwen_image needs a multiple of 16; the nearest is 992",
        "batch=1,0": "batch=0: must be at least 1",
        "batch=1,two": "batch=two: must be a whole number",
        "hardware=h2000": "unknown hardware 'h2000'; did you mean 'h200'?",
        "hardware=auto": "hardware=auto: nothing is known of this machine; choose hardware=h200",
        "model=sd3_5_large": "model=sd3_5_large cannot be predicted: conf/model/sd3_5_large.yaml does not say",
        "model=qwen_imag": "unknown model 'qwen_imag'; did you mean 'qwen_image'?",
        "model=qwen_image model.dit.layers=-3": "layers=-3: must be 0 or more",
        "model=qwen_image model.path=/nowhere": "model.path=/nowhere: no such folder",
        "feature=teacahe": "unknown feature 'teacahe'; did you mean 'teacache'?",
        "feature=teacache feature.teacache.predict.skip=2": "predict.skip=2: must be from 0 to 1",
        "hardware.memory_gb=-3": "hardware.memory_gb=-3.0: must be more than 0",
        "engine=noop": "engine=noop cannot be predicted: it runs no model of ours",
        "model=glm_image model.stages.ar.enforce_eager=true": "ar.enforce_eager=true cannot be predicted",
        "--best speed": "--best speed: no such goal; there are latency, ",
        "--under memory=80": "--under goes with --best",
        "--best cost --under mem=1": "--under mem=1: no such limit; did you mean 'memory'?",
        "--best cost --under memory=nan": "--under memory=nan: must be a number above 0",
        "--calibration /nowhere": "/nowhere: no calibration",
        "feature=[cache_dit,teacache] baselines=false": "nothing of it can run: cache_dit+teacache b1: ",
    }.items(),
)
def test_nonsense_is_one_line(given: str, said: str, tmp_path: Path) -> None:
    done = predict(tmp_path, *(one for one in QWEN if one.partition("=")[0] not in given), *given.split())
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert done.err.startswith("sweep.predict: ")
    assert len(done.err.splitlines()) == 1, done.err


def test_a_feature_without_a_predict_block_says_so() -> None:
    with pytest.raises(ConfigError, match=r"mine cannot be predicted: conf/feature/mine.yaml has no predict: block"):
        merged([Feature(name="mine")])
    with pytest.raises(ConfigError, match=r"feature.mine.predict.skips=1: no such effect; did you mean 'skip'\?"):
        merged([Feature(name="mine", predict={"skips": 1})])


def test_a_peak_that_the_hardware_lacks_skips_the_cell() -> None:
    found = predicted(*QWEN[:3], "hardware=a100_80gb", "feature=fp8")
    assert found["fp8 b1"] == "hardware=a100_80gb has no peak in fp8 (peak_tflops.fp8)"
    assert found["baseline b1"].fits


def test_features_do_to_the_work_what_they_say() -> None:
    found = predicted(*QWEN, "feature=cfg_parallel,ulysses,tp,teacache,fp8,hsdp,layerwise_offload,vae_tiling,eager")
    base = found["baseline b1"]
    limit = {label.split()[0]: one.limit_s / base.limit_s for label, one in found.items()}
    assert limit["cfg_parallel"] == pytest.approx(0.5, abs=0.01)
    assert limit["ulysses"] == pytest.approx(0.5, abs=0.02)
    assert limit["tp"] == pytest.approx(0.5, abs=0.01)
    assert limit["teacache"] == pytest.approx(0.5, abs=0.01), "half of the blocks, as its file assumes"
    assert 0.5 < limit["fp8"] < 0.7, "products twice as fast, attention not"
    assert limit["hsdp"] == limit["layerwise_offload"] == limit["eager"] == 1

    held = {label.split()[0]: one.memory for label, one in found.items()}
    assert held["fp8"]["dit_weights"] < 0.7 * base.memory["dit_weights"]
    assert held["tp"]["dit_weights"] == pytest.approx(base.memory["dit_weights"] * 2 / 3, rel=0.01)
    assert held["hsdp"]["dit_weights"] < 0.55 * base.memory["dit_weights"]
    assert held["layerwise_offload"]["dit_weights"] < 0.05 * base.memory["dit_weights"]
    assert held["vae_tiling"]["vae_activations"] < 0.1 * base.memory["vae_activations"]
    assert found["layerwise_offload b1"].latency_s > 2 * base.latency_s, "weights cross the bus in every step"
    assert found["eager b1"].latency_s > base.latency_s
    assert found["vae_tiling b1"].latency_s > base.latency_s


def test_more_pictures_need_more_memory_until_none_is_left() -> None:
    found = predicted(*QWEN, "batch=1,4,16,64", "engine.max_num_seqs=64")
    totals = [found[f"baseline b{batch}"].memory.total for batch in (1, 4, 16, 64)]
    assert totals == sorted(totals)
    assert [found[f"baseline b{batch}"].fits for batch in (1, 64)] == [True, False]


def test_a_search_names_the_best_and_why_others_are_out(tmp_path: Path) -> None:
    goal = ("--best", "latency", "--under", "gpus=2,memory=100,psnr=20")
    done = predict(tmp_path, *QWEN, "feature=cfg_parallel,teacache,cache_dit,ulysses", "combine=2", "batch=1,2", *goal)
    assert done.code == 0, done.err
    first = done.out.splitlines()[0]
    assert first.startswith("Lowest latency of 22: cfg_parallel+teacache b1 on 2 × h200, ")
    assert "miss gpus" in first
    assert "are skipped" in first
    none = predict(tmp_path, *QWEN, "--best", "latency", "--under", "latency=0.001")
    assert none.code == 1
    assert none.out.startswith("None of 1 configurations is left: 1 miss latency.")


def test_shapes_of_a_checkpoint_at_another_depth_are_read_from_it(tmp_path: Path) -> None:
    """FLUX.2's DiT and VAE; of FLUX.1's two text encoders the one whose states the DiT reads."""
    for name, wanted in {"flux2_klein": (2, 1, 128), "flux": (2, 1, 128)}.items():
        build(resolve(name, {"dit": 2}, tiny=True), tmp_path / name, say=lambda line: None, device="cpu")
        found = shapes.of_checkpoint(shapes.named(name), tmp_path / name)
        assert found.dit is not None
        assert found.text_encoder is not None
        assert found.vae is not None
        assert (found.dit.layers, found.dit.joined_layers, found.dit.hidden) == wanted
        assert found.dit.shared_modulation == (name == "flux2_klein")
        assert found.text_encoder.hidden == 64
        assert found.vae.latent == (32 if name == "flux2_klein" else 16)
        written = shapes.parameters(tmp_path / name / "transformer")
        assert dit.parameters(found.dit, 2) == pytest.approx(written, rel=0.3), "biases weigh at toy widths"


def test_thousands_need_neither_torch_nor_a_composition_each() -> None:
    product = "batch=1,2,3,4,5,6,7,8 workload.steps=10,20,30,40 workload.width=512,768 combine=2"
    script = (
        "import sys; from sweep.predict.__main__ import main; code = main(sys.argv[1:]); "
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules); sys.exit(code)"
    )
    given = [*QWEN, "feature=teacache,cfg_parallel,ulysses,tp,ring", *product.split(), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", script, *given], env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["cells"]) == 1024


@pytest.mark.parametrize("name", ["tiny_glm_image", "tiny_glm_image_random", "tiny_qwen_image"])
def test_a_checkpoint_and_its_file_in_conf_have_one_shape(name: str) -> None:
    known = shapes.named(name)
    read = shapes.of_checkpoint(known, ensure_checkpoint(name))
    for said, there in ((known, read), (read, known)):
        assert said.dit is not None
        assert said.vae is not None
        assert there.dit is not None
        assert there.vae is not None
        assert dit.of(said.dit, 2, 16, 8).whole == dit.of(there.dit, 2, 16, 8).whole
        assert vae.of(said.vae, 64, 64, 8) == vae.of(there.vae, 64, 64, 8)
        assert said.text_encoder is not None
        assert there.text_encoder is not None
        assert decoder.of(said.text_encoder, 8) == decoder.of(there.text_encoder, 8)
        if known.ar is not None:
            assert said.ar is not None
            assert there.ar is not None
            assert decoder.of(said.ar, 8) == decoder.of(there.ar, 8)


def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text('{"_class_name": "QwenImageTransformer2DModel"}')
    with pytest.raises(ConfigError, match=r"transformer/config.json: no shape can be read from it"):
        shapes.of_checkpoint(shapes.named("qwen_image"), tmp_path)
