"""The entry point in processes of its own: a package with vLLM-Omni's module names stands in for it."""

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from profiling.vllm_plugin.hooks import HOOKS
from profiling.vllm_plugin.record_files import FOLDER_VARIABLE, Markers, markers

ROOT = Path(__file__).resolve().parents[2]

CLASSES = {
    "vllm_omni/diffusion/worker/diffusion_model_runner.py": """
class DiffusionModelRunner:
    def load_model(self): self.pipeline = None
    def execute_stepwise(self, scheduler_output): pass
""",
    "vllm_omni/worker/gpu_ar_model_runner.py": """
class GPUARModelRunner:
    def execute_model(self, scheduler_output): return "output"
    def sample_tokens(self, grammar_output): pass
""",
    "vllm_omni/engine/orchestrator.py": """
class OrchestratorBase:
    async def _forward_to_next_stage(self, req_id, src_stage_id, output, req_state): pass
class Orchestrator(OrchestratorBase): pass
""",
    "vllm_omni/diffusion/stage_diffusion_client.py": """
class StageDiffusionClient:
    async def add_request_async(self, request_id, prompt, sampling_params): pass
""",
    "vllm_omni/distributed/omni_connectors/kv_transfer_manager.py": """
class OmniKVTransferManager:
    def _transfer_kv_cache(self, kv_data, transfer_req_id): pass
    def receive_kv_cache_for_request(self, request_id): return None, 0
""",
    "vllm_omni/entrypoints/async_omni.py": """
class AsyncOmni:
    @staticmethod
    def _get_unique_request_id(external_request_id): return external_request_id + "-0123abcd"
""",
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with the package."""
    site = tmp_path / "site"
    for name, text in CLASSES.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for parent in path.parents:
            if parent == site:
                break
            (parent / "__init__.py").touch()
    return site


def run(site: Path, script: str, folder: Path | None) -> tuple[Any, Markers]:
    """What the script printed as JSON, and the markers that its processes left."""
    environment = {name: value for name, value in os.environ.items() if name != FOLDER_VARIABLE}
    environment["PYTHONPATH"] = os.pathsep.join([str(site), str(ROOT)])
    if folder is not None:
        environment[FOLDER_VARIABLE] = str(folder)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), markers(folder or site / "none")


def test_without_the_variable_nothing_happens(site: Path, tmp_path: Path) -> None:
    script = """
import json, sys
import vllm_omni.diffusion.worker.diffusion_model_runner as module
before = module.DiffusionModelRunner.load_model, list(sys.meta_path)
from profiling.vllm_plugin import install
install()
print(json.dumps([before == (module.DiffusionModelRunner.load_model, list(sys.meta_path)), "torch" in sys.modules]))
"""
    printed, found = run(site, script, None)
    assert printed == [True, False]
    assert found == Markers((), ())


def test_what_is_imported_is_hooked_at_once_and_the_rest_when_it_is(site: Path, tmp_path: Path) -> None:
    script = """
import json, os, sys
import vllm_omni.worker.gpu_ar_model_runner as early
from profiling.vllm_plugin import install
install()
install()
marker = open(os.environ["SWEEP_PLUGIN_DIR"] + f"/installed-{os.getpid()}.json").read()
import vllm_omni.diffusion.worker.diffusion_model_runner as late
import inspect
source = inspect.getsource(late)
print(json.dumps([json.loads(marker)["hooks"], "load_model" in source, os.getpid()]))
"""
    printed, found = run(site, script, tmp_path / "made" / "by" / "install")
    at_once = ["GPUARModelRunner.execute_model", "GPUARModelRunner.sample_tokens"]
    assert printed[:2] == [at_once, True]
    (installed,) = found.installed
    assert installed.pid == printed[2]
    assert installed.hooks == (
        *at_once,
        *("DiffusionModelRunner.load_model", "DiffusionModelRunner.execute_stepwise"),
    )
    assert found.failed == ()


def test_the_orchestrator_is_hooked_where_the_method_is(site: Path, tmp_path: Path) -> None:
    script = """
import vllm_omni.engine.orchestrator
from profiling.vllm_plugin import install
install()
print("null")
"""
    assert run(site, script, tmp_path)[1].installed[0].hooks == ("OrchestratorBase._forward_to_next_stage",)


def test_a_forked_process_is_marked_when_it_installs_or_works(site: Path, tmp_path: Path) -> None:
    script = """
import json, os
from types import SimpleNamespace
import vllm_omni.worker.gpu_ar_model_runner as module
from profiling.vllm_plugin import install
install()
children = []
for work in (install, None):
    child = os.fork()
    if child == 0:
        if work is None:  # vLLM-Omni loads plugins once and remembers it across a fork
            scheduled = SimpleNamespace(total_num_scheduled_tokens=1, scheduled_new_reqs=[], num_scheduled_tokens={},
                scheduled_cached_reqs=SimpleNamespace(num_output_tokens=[1], resumed_req_ids=set()))
            assert module.GPUARModelRunner().execute_model(scheduled) == "output"
        else:
            work()
        os._exit(0)
    children.append(child)
    assert os.waitpid(child, 0)[1] == 0
print(json.dumps([os.getpid(), *children]))
"""
    pids, found = run(site, script, tmp_path)
    assert sorted(pids) == sorted(one.pid for one in found.installed)
    assert {one.hooks for one in found.installed} == {
        ("GPUARModelRunner.execute_model", "GPUARModelRunner.sample_tokens")
    }
    assert found.failed == ()


def test_a_fork_with_a_folder_of_its_own_writes_there(site: Path, tmp_path: Path) -> None:
    script = f"""
import json, os
import vllm_omni.worker.gpu_ar_model_runner as module
from profiling.vllm_plugin.hooks import install, Here
install()
child = os.fork()
if child == 0:
    os.environ["SWEEP_PLUGIN_DIR"] = {str(tmp_path / "second")!r}
    install()
    assert Here().folder.name == "second"
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(child)
"""
    child, found = run(site, script, tmp_path / "first")
    assert len(found.installed) == 1
    assert [one.pid for one in markers(tmp_path / "second").installed] == [child]


def test_a_class_that_is_not_as_expected_is_said_and_nothing_raised(site: Path, tmp_path: Path) -> None:
    path = site / "vllm_omni/diffusion/worker/diffusion_model_runner.py"
    path.write_text("class DiffusionModelRunner:\n    def renamed(self): pass\n")
    script = """
import vllm_omni.worker.gpu_ar_model_runner
from profiling.vllm_plugin import install
install()
import vllm_omni.diffusion.worker.diffusion_model_runner
print("null")
"""
    _, found = run(site, script, tmp_path)
    assert "no attribute 'load_model'" in found.failed[0]
    assert found.installed[0].hooks == ("GPUARModelRunner.execute_model", "GPUARModelRunner.sample_tokens")


def test_an_import_that_fails_fails_as_ever(site: Path, tmp_path: Path) -> None:
    (site / "vllm_omni/diffusion/worker/diffusion_model_runner.py").write_text("import nothing_of_this_name\n")
    script = """
import json
from profiling.vllm_plugin import install
install()
for name in ("vllm_omni.diffusion.worker.diffusion_model_runner", "vllm_omni.worker_v2.omni_ar_model_runner"):
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        print(json.dumps(error.name))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), FOLDER_VARIABLE: str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ['"nothing_of_this_name"', '"vllm_omni.worker_v2"'], done.stderr
    assert markers(tmp_path).failed == ()


def test_the_entry_point_is_declared() -> None:
    import tomllib

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert declared["vllm_omni.general_plugins"] == {"sweep_profiling": "profiling.vllm_plugin:install"}
    for point in entry_points(group="vllm_omni.general_plugins"):
        if point.name == "sweep_profiling":
            assert callable(point.load())


def test_the_stand_in_has_the_modules_that_are_hooked() -> None:
    names = {name.removesuffix(".py").replace("/", ".") for name in CLASSES}
    assert names == set(HOOKS) - {"vllm_omni.worker_v2.omni_ar_model_runner"}
