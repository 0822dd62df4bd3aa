"""A broken stage of an AR → DiT model is named as the cause, through the real command line and the trained model."""

import pytest

from tests.faults.conftest import Sweep

TRAINED = (
    *("-m", "interleave=false", "aa=0", "plots=false", "engine.warmup=0"),
    *("workload.num_prompts=2", "batch=2", "workload.repeats=1", "workload.steps=2"),
)
"""Both prompts go through one AR stage.

Steps are too few for pictures: the AR stage and the hand-over are judged by tokens alone.
"""

AFTER_LOADING = """
_made = RankRunner.__init__

def made(self, place, spec):
    _made(self, place, spec)
    if {where}:
        break_stage(self.pipe)

RankRunner.__init__ = made
"""

HOT = """
def break_stage(pipe):
    pipe.vision_language_encoder.generation_config.update(temperature=20.0, top_k=1000, top_p=1.0)
"""
"""An AR stage that samples almost evenly from all its image tokens."""

OTHER_TOKENS = """
def break_stage(pipe):
    generated = pipe.generate_prior_tokens

    def corrupted(*args, **kwargs):
        tokens, *rest = generated(*args, **kwargs)
        return (tokens + 1) % pipe.vision_language_encoder.config.text_config.vision_vocab_size, *rest

    pipe.generate_prior_tokens = corrupted
"""
"""A hand-over in which every token becomes its successor."""

ENGINE = "sweep.engines.diffusers.engine"


@pytest.mark.parametrize(
    ("fault", "code", "tokens_right"), [(HOT, "ar_tokens_wrong", False), (OTHER_TOKENS, "hand_over_broken", True)]
)
def test_a_stage_that_is_broken_in_the_whole_sweep_is_named(
    fault: str, code: str, tokens_right: bool, sweep: Sweep
) -> None:
    sweep.inject(ENGINE, fault + AFTER_LOADING.format(where="True"))
    done = sweep.run(*TRAINED)
    assert done.code == 1, done.out + done.err
    assert sweep.statuses() == {"baseline b2": ("FAIL", code)}
    assert (float(sweep.rows()["baseline b2"]["tokens_right"]) > 0.5) == tokens_right


def test_a_stage_that_is_broken_in_one_cell_is_named_in_its_row(sweep: Sweep) -> None:
    hot, other = HOT.replace("break_stage", "heat"), OTHER_TOKENS.replace("break_stage", "corrupt")
    which = "def break_stage(pipe):\n    (heat if pipe.vae.use_slicing else corrupt)(pipe)\n"
    sweep.inject(ENGINE, hot + other + which + AFTER_LOADING.format(where="spec.features"))
    done = sweep.run(*TRAINED, "feature=vae_slicing,cache_dit")
    assert done.code == 1, done.out + done.err
    rows, found = sweep.rows(), sweep.statuses()
    assert found["baseline b2"][0] == "PASS"
    assert found["vae_slicing b2"] in {("FAIL", "ar_tokens_wrong"), ("FAIL", "ar_breaks_facts")}
    assert "AR stage" in sweep.reason("vae_slicing b2")
    assert found["cache_dit b2"] == ("FAIL", "hand_over_broken")
    right = [float(rows[f"{name} b2"]["tokens_right"]) > 0.5 for name in ("baseline", "vae_slicing", "cache_dit")]
    assert right == [True, False, True]
