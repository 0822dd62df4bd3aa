"""Secrets in overrides: what runs has them; what a sweep stores and prints does not."""

import json
from pathlib import Path

import pytest

from sweep.masking import MASK
from tests.conftest import ROOT
from tests.faults.conftest import NOOP, Sweep

SEEN = """
def load(self, before=NoopEngine.load):
    import json, stat
    FLAG.write_text(json.dumps(self.spec.features))
    (kept,) = FLAG.parent.glob("sweep/.secrets.json") or [None]
    (FLAG.parent / "mode").write_text(oct(stat.S_IMODE(kept.stat().st_mode)))
    return before(self)

NoopEngine.load = load
"""


def texts(folder: Path) -> dict[str, str]:
    """Every stored file."""
    return {str(path): path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("sweeps", [False, True], ids=["single", "sweep"])
def test_secrets_run_and_are_stored_nowhere(sweep: Sweep, sweeps: bool) -> None:
    """A password in a URL, and an option called token, which the engine's process gets as it is."""
    features = sweep.base / "conf" / "feature"
    features.mkdir(parents=True)
    shipped = (ROOT / "conf" / "feature" / "vae_slicing.yaml").read_text()
    (features / "mine.yaml").write_text(shipped.replace("vae_slicing:", "mine:\n  hf_token: ''"))
    sweep.inject("sweep.engines.noop.engine", SEEN)
    secret = ("model.repo=https://user:hunter2@host/x", "feature.mine.hf_token=hunter2")
    where = f"hydra.{'sweep' if sweeps else 'run'}.dir={sweep.folder}"
    arguments = ["--config-dir", "conf", *NOOP, "feature=mine", *secret, "plots=true", "baselines=false", where]
    done = sweep.run(*["-m"] * sweeps, *arguments)
    assert "Traceback" not in done.err, done.err
    assert json.loads(sweep.flag.read_text()) == {"mine": {"hf_token": "hunter2"}}
    assert (sweep.base / "mode").read_text() == "0o600"
    stored = texts(sweep.folder)
    assert not [name for name, text in stored.items() if "hunter2" in text]
    (plan,) = (text for name, text in stored.items() if name.endswith("plan.json"))
    assert f"https://{MASK}@host/x" in plan
    assert sum(f"hf_token={MASK}" in text or f"hf_token: '{MASK}'" in text for text in stored.values()) >= 3
    assert "hunter2" not in done.out + done.err


def test_a_refusal_says_no_secret(sweep: Sweep) -> None:
    done = sweep.run(*NOOP, "model.path=https://user:hunter2@host/x", f"hydra.run.dir={sweep.folder}")
    assert (done.code, len(done.err.splitlines())) == (2, 1)
    assert "hunter2" not in done.err
    assert f"https://{MASK}@host/x" in done.err
