"""Forking from a process that has imported: what the fork takes over, and that it can be ended like any other."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from multiprocessing import Pipe
from pathlib import Path

import pytest

SCRIPT = """
import os, sys, tempfile
from multiprocessing import Pipe
from sweep.engines.process import forkserver
from tests.engines import forked_doubles

if __name__ == "__main__":
    forkserver.start_server(PRELOAD, {"SWEEP_TEST_SERVER": "1"})
    assert "SWEEP_TEST_SERVER" not in os.environ
    log = tempfile.TemporaryFile()
"""


def run(body: str, tmp_path: Path, preload: str = "colorsys") -> str:
    """What SCRIPT and then `body` print in a separate process, as one process keeps one server for life."""
    done = completed(body, tmp_path, preload)
    assert done.returncode == 0, done.stderr
    return done.stdout


def completed(body: str, tmp_path: Path, preload: str = "colorsys") -> "subprocess.CompletedProcess[str]":
    """That process when it has ended, however it did."""
    path = tmp_path / "script.py"
    path.write_text(f"PRELOAD = {preload!r}\n" + SCRIPT + textwrap.indent(textwrap.dedent(body), "    "))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "SWEEP_TEST_MARK": "of the parent"}
    return subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=600, env=environment)


def soon_gone(block: Path) -> bool:
    """Whether shared memory is given back within two minutes; it is taken away if not."""
    for _ in range(2400):
        if not block.exists():
            return True
        time.sleep(0.05)
    block.unlink()
    return False


def test_a_fork_has_the_imports_and_what_spawning_would_give(tmp_path: Path) -> None:
    """Three levels, of which the inner two are spawned with multiprocessing's own means."""
    out = run(
        """
        ours, theirs = Pipe()
        engine = forkserver.Forked(
            forked_doubles.tell, (theirs, 2), {**os.environ, "SWEEP_TEST_MARK": "given"}, log.fileno(), 240
        )
        told = ours.recv()
        assert engine.wait(240) == 0 and engine.poll() == 0
        child, grandchild = told["child"], told["child"]["child"]
        assert told["pid"] == engine.pid
        assert [one["preloaded"] for one in (told, child, grandchild)] == [True] * 3
        assert [one["group"] for one in (told, child, grandchild)] == [engine.pid] * 3
        marks = [one["mark"] for one in (told, child, grandchild)]
        assert marks == ["given", "set at level 2", "set at level 1"], marks
        assert len({one["parent"] for one in (told, child, grandchild)}) == 1  # the server
        assert told["child_exit"] == child["child_exit"] == 0
        log.seek(0)
        print(log.read().decode(), end="")
        """,
        tmp_path,
    )
    assert sorted(out.split("\n")) == ["", "level 0 speaks", "level 1 speaks", "level 2 speaks"]


def test_imports_can_be_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEP_TEST_FILE", str(tmp_path / "imported"))
    out = run(
        """
        import threading
        from pathlib import Path
        imported = Path(os.environ["SWEEP_TEST_FILE"])
        before = imported.exists()
        threading.Timer(0.5, imported.with_name("go").touch).start()
        forkserver.await_imports(240)
        print(before, imported.exists())
        """,
        tmp_path,
        preload="tests.engines.slow_double",
    )
    assert out == "False True\n"


def test_a_server_that_dies_while_it_imports_is_said_to_have_died(tmp_path: Path) -> None:
    out = run(
        """
        for moment in ("while it imports", "afterwards"):
            try:
                forkserver.Forked(forked_doubles.linger, (Pipe()[1],), dict(os.environ), log.fileno(), 240)
            except forkserver.ServerDied as error:
                print(moment, error, sep=": ")
        """,
        tmp_path,
        preload="tests.engines.dying_double",
    )
    said = "the process that engines are forked from has ended"
    assert out == f"while it imports: {said}\nafterwards: {said}\n", "and no other one was started"


def test_a_server_that_imports_for_too_long_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the requested code run once it has imported. The environment is more than a pipe holds."""
    monkeypatch.setenv("SWEEP_TEST_FILE", str(tmp_path / "imported"))
    out = run(
        """
        large = {**os.environ, **{f"SWEEP_TEST_{n}": "x" * 50_000 for n in range(10)}}
        ours, theirs = Pipe()
        for wait in (lambda: forkserver.Forked(forked_doubles.tell, (theirs,), large, log.fileno(), 0.2),
                     lambda: forkserver.await_imports(0.2)):
            try:
                wait()
            except TimeoutError as error:
                print(error, os.path.exists(os.environ["SWEEP_TEST_FILE"]))
        open(os.path.join(os.path.dirname(os.environ["SWEEP_TEST_FILE"]), "go"), "w").close()
        engine = forkserver.Forked(forked_doubles.tell, (theirs,), large, log.fileno(), 240)
        theirs.close()
        assert ours.recv()["pid"] == engine.pid
        assert engine.wait(240) == 0
        try:
            print("another one ran", ours.recv())
        except EOFError:
            pass
        """,
        tmp_path,
        preload="tests.engines.slow_double",
    )
    assert out == "the process that engines are forked from has not answered within 0.2 s False\n" * 2


@pytest.mark.parametrize(("module", "kept"), [("colorsys", False), ("no_such_module", True)])
def test_the_log_of_imports_stays_only_if_one_failed(module: str, kept: bool, tmp_path: Path) -> None:
    log = tmp_path / "imports.log"
    code = f"from sweep.engines.process.forkserver import import_all; import_all(['json', {module!r}]); print('said')"
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "SWEEP_PREIMPORT_LOG": str(log)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, env=variables)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), "nothing reaches the terminal"
    assert log.exists() is kept
    assert not kept or "No module named 'no_such_module'" in log.read_text()


def test_its_end_is_told_like_that_of_any_process(tmp_path: Path) -> None:
    run(
        """
        import signal, subprocess
        ours, theirs = Pipe()
        engine = forkserver.Forked(forked_doubles.linger, (theirs,), dict(os.environ), log.fileno(), 240)
        assert ours.recv() == engine.pid
        assert engine.poll() is None
        try:
            engine.wait(0.05)
            raise AssertionError("it has ended")
        except subprocess.TimeoutExpired:
            pass
        os.killpg(engine.pid, signal.SIGKILL)
        assert engine.wait(240) == -signal.SIGKILL
        """,
        tmp_path,
    )


def test_an_engine_that_leads_no_group_yet_can_be_killed(tmp_path: Path) -> None:
    """Right after it was forked: it joins its group once it has read what to do, which takes it a while here."""
    run(
        """
        import signal
        from sweep.engines.process import host
        from tests.engines.conftest import make_spec
        slow = (forked_doubles.SlowToRead(),)
        host._fork = lambda spec, pipe, *rest: forkserver.Forked(forked_doubles.linger, slow, os.environ, *rest)
        signal.alarm(240)
        engine = host.EngineHost(make_spec("tiny_qwen_image"), 240)
        assert os.getpgid(engine.pid) != engine.pid
        engine.kill()
        assert engine.process.poll() == -signal.SIGKILL
        """,
        tmp_path,
    )


def test_the_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    out = run(
        """
        ours, theirs = Pipe()
        engine = forkserver.Forked(forked_doubles.tell, (theirs,), dict(os.environ), log.fileno(), 240)
        print(ours.recv()["parent"])
        engine.wait(240)
        """,
        tmp_path,
    )
    server = int(out)
    for _ in range(2400):
        try:
            os.kill(server, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.kill(server, signal.SIGKILL)
    pytest.fail("the server outlived the process that started it")


def test_shared_memory_of_a_killed_engine_is_given_back(tmp_path: Path) -> None:
    out = run(
        """
        from sweep.run.descendants import kill_descendants
        ours, theirs = Pipe()
        engine = forkserver.Forked(forked_doubles.hold_shared_memory, (theirs,), dict(os.environ), log.fileno(), 240)
        print(ours.recv())
        kill_descendants()
        """,
        tmp_path,
    )
    assert soon_gone(Path("/dev/shm") / out.strip()), "shared memory outlived the sweep"


def test_what_a_killed_engine_leaves_is_cleared_away_without_a_word(tmp_path: Path) -> None:
    done = completed(
        """
        ours, theirs = Pipe()
        engine = forkserver.Forked(forked_doubles.hold_shared_memory, (theirs,), dict(os.environ), log.fileno(), 240)
        print(ours.recv())
        os.killpg(engine.pid, 9)
        """,
        tmp_path,
    )
    assert soon_gone(Path("/dev/shm") / done.stdout.strip())
    assert done.stderr == ""


def test_an_engine_ends_itself_when_the_sweep_is_gone() -> None:
    """`main_forked` watches the process that requested it, as its system parent is the server."""
    sweep = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    ours, theirs = Pipe()
    code = (
        "from multiprocessing.connection import Connection; from sweep.engines.process.child import main_forked; "
        f"main_forked(Connection({theirs.fileno()}), {sweep.pid})"
    )
    os.set_inheritable(theirs.fileno(), True)
    engine = subprocess.Popen([sys.executable, "-c", code], pass_fds=(theirs.fileno(),), start_new_session=True)
    time.sleep(1.0)
    assert engine.poll() is None
    sweep.kill()
    sweep.wait()
    assert engine.wait(240) == -signal.SIGKILL
    ours.close()
