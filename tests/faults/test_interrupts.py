"""Ctrl-C and other signals at every stage: exit code 130, finished cells summarised, no process left."""

import fcntl
import os
import select
import shlex
import signal
import termios
import time

import pytest

from tests.conftest import to_run
from tests.faults.conftest import NOOP, Sweep, alive, group_alive, hear_a_hang_up, numbers, wait_for
from tests.faults.test_engine import in_generate

STOP = "import os, time; [os.kill(pid, {signal}) for pid in ({whom})]; time.sleep(60 if {stay} else 0)"

IN_ENGINE = """
_{name} = NoopEngine.{name}

def {name}(self, *arguments):
    if {condition}:
        {stop}
    return _{name}(self, *arguments)

NoopEngine.{name} = {name}
"""

AFTER_GROUP = """
_group = run_group

def run_group(folder, plan, number):
    _group(folder, plan, number)
    if number == 0:
        {stop}
"""

IN_SUMMARY = """
_summarise = summarise

def summarise(*arguments, **options):
    if not FLAG.exists():
        FLAG.touch()
        {stop}
    return _summarise(*arguments, **options)
"""

WHILE_STORING = """
_save_result = SweepFolder.save_result

def save_result(self, cell, *arguments):
    _save_result(self, cell, *arguments)
    if cell.config["batch"] == 2:
        {stop}

SweepFolder.save_result = save_result
"""

GROUP_1, GROUP_2 = "threads_per_rank=1", "threads_per_rank=2"
ARGUMENTS = ("-m", *NOOP, "batch=1,2", "engine.threads_per_rank=1,2", "engine.warmup=1")
"""Cells run in the order b1, b2 of one engine, then b1, b2 of another."""

CELLS = [f"baseline b{batch} {group}" for group in (GROUP_1, GROUP_2) for batch in (1, 2)]
NOT_RUN, INTERRUPTED = ("NOT RUN", "not_run"), ("ERROR", "interrupted")
BATCH_OF_2 = "arguments and len(arguments[0]) == 2 and self.spec.threads_per_rank == 1"
SECOND_LOAD = "self.spec.threads_per_rank == 2"

STAGES = {
    "loading": (
        ("sweep.engines.noop.engine", "load", SECOND_LOAD),
        [("PASS", ""), ("PASS", ""), INTERRUPTED, NOT_RUN],
    ),
    "warm-up": (
        ("sweep.engines.noop.engine", "generate", f"{BATCH_OF_2} and not arguments[1]"),
        [("PASS", ""), INTERRUPTED, NOT_RUN, NOT_RUN],
    ),
    "measuring": (
        (
            "sweep.engines.noop.engine",
            "generate",
            f"{BATCH_OF_2} and arguments[1] and arguments[0][0].prompt_index == 2",
        ),
        [("PASS", ""), INTERRUPTED, NOT_RUN, NOT_RUN],
    ),
    "storing": (("sweep.results.folder", WHILE_STORING), [("PASS", ""), ("PASS", ""), NOT_RUN, NOT_RUN]),
    "between groups": (("sweep.run.group", AFTER_GROUP), [("PASS", ""), ("PASS", ""), NOT_RUN, NOT_RUN]),
    "summary": (("sweep.analysis.summary", IN_SUMMARY), [("PASS", "")] * 4),
}


FACTS: dict[str, tuple[str, list[int]]] = {
    "loading": ("load", []),
    "warm-up": ("warm", []),
    "measuring": ("", [2, 2, 1]),
}
"""Where an interrupted cell was, according to its reason: a word, and batch 2 of 2, repeat 1."""


TO_ALL = (signal.SIGHUP, signal.SIGUSR1)
"""What a terminal that is closed, or a scheduler that preempts, sends to engines as well."""

WHEN = [(stage, number) for stage in STAGES for number in (signal.SIGINT, signal.SIGTERM)]
WHEN += [("measuring", number) for number in TO_ALL]


def stop_at(sweep: Sweep, stage: str, number: int) -> None:
    """Have the sweep interrupted at `stage`, by code of its own that is known to be there."""
    (module, *what), _ = STAGES[stage]
    if module == "sweep.engines.noop.engine":
        itself = "os.getpid(), " if number in TO_ALL else ""
        stop = STOP.format(whom=f"{itself}os.getppid(),", signal=number, stay=True)
        code = IN_ENGINE.format(name=what[0], condition=what[1], stop=stop)
    else:
        code = what[0].format(stop=STOP.format(whom="os.getpid(),", signal=number, stay=False))
    sweep.inject(module, code)


@pytest.mark.parametrize(("stage", "number"), WHEN, ids=[f"{stage}-{number.name}" for stage, number in WHEN])
def test_interrupt_summarises_what_finished(sweep: Sweep, stage: str, number: int) -> None:
    stop_at(sweep, stage, int(number))
    done = sweep.run(*ARGUMENTS)
    assert done.code == 130, done.out + done.err
    assert "Traceback" not in done.err
    assert [sweep.statuses()[cell] for cell in CELLS] == STAGES[stage][1]
    for cell in (cell for cell in CELLS if sweep.statuses()[cell] == INTERRUPTED):
        word, place = FACTS[stage]
        assert word in sweep.reason(cell)
        assert numbers(sweep.reason(cell)) == place
    assert sweep.manifest()["exit_code"] == 130
    assert not [pid for pid in sweep.engine_pids() if alive(pid)]


def test_what_was_interrupted_keeps_its_measured_requests_and_a_rerun_goes_on(sweep: Sweep) -> None:
    stop_at(sweep, "measuring", signal.SIGINT)
    assert sweep.run(*ARGUMENTS).code == 130
    codes = [row["exit_code"] for row in sweep.requests(f"baseline b2 {GROUP_1}")]
    assert codes == ["0", "0", "1", "1"]
    sweep.faults.clear()
    again = sweep.run(*ARGUMENTS)
    assert again.code == 0, again.out + again.err
    assert to_run(again.out) == (3, 1)


def test_the_last_line_is_the_command_that_resumes_and_it_does(sweep: Sweep) -> None:
    """Pasted into a shell, though the folder's name has a space."""
    sweep.folder = sweep.base / "two words"
    stop_at(sweep, "between groups", signal.SIGINT)
    done = sweep.run(*ARGUMENTS, f"hydra.sweep.dir='{sweep.folder}'")
    assert done.code == 130, done.out + done.err
    assert [sweep.statuses()[cell] for cell in CELLS] == STAGES["between groups"][1]
    said, _, command = done.out.splitlines()[-1].partition("to resume, run: ")
    assert said.startswith("interrupted: ")
    words = shlex.split(command)
    assert words[1:3] == ["-m", "sweep"]
    sweep.faults.clear()
    again = sweep.run(*words[3:])
    assert again.code == 0, again.out + again.err
    assert to_run(again.out) == (2, 2)
    assert "to resume" not in again.out


def test_an_interrupted_budget_says_so_and_is_resumed_with_its_budget(sweep: Sweep) -> None:
    """Also of cells that an earlier, shorter budget had left out."""
    assert sweep.run(*ARGUMENTS, "budget=0.001s").code == 1
    assert set(sweep.statuses().values()) == {("NOT RUN", "budget")}
    stop_at(sweep, "between groups", signal.SIGINT)
    done = sweep.run(*ARGUMENTS, "budget=1h")
    assert done.code == 130, done.out + done.err
    assert [sweep.statuses()[cell] for cell in CELLS] == STAGES["between groups"][1], "not for lack of time"
    command = done.out.splitlines()[-1].partition("to resume, run: ")[2]
    assert "budget=1h" in command
    sweep.faults.clear()
    again = sweep.run(*shlex.split(command)[3:])
    assert again.code == 0, again.out + again.err
    assert to_run(again.out) == (2, 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_interrupt_while_planning_leaves_nothing(sweep: Sweep, number: int) -> None:
    sweep.inject("sweep.plan.plans", f"import os\n\ndef build_plan(cells):\n    os.kill(os.getpid(), {int(number)})\n")
    done = sweep.run(*ARGUMENTS)
    assert (done.code, done.out, done.err) == (130, "", "")
    assert not (sweep.folder / "plan.json").exists()


def test_second_interrupt_while_cleaning_up_loses_no_result(sweep: Sweep) -> None:
    """Interrupted while measuring; again when the cell is stored, processes are ended, and the summary is written."""
    stop_at(sweep, "measuring", signal.SIGINT)
    again = STOP.format(whom="os.getpid(),", signal=int(signal.SIGINT), stay=False)
    sweep.inject("sweep.results.folder", WHILE_STORING.format(stop=again))
    sweep.inject("sweep.analysis.summary", IN_SUMMARY.format(stop=again))
    sweep.inject(
        "sweep.run.session",
        f"_kill = kill_descendants\n\ndef kill_descendants():\n    {again}\n    _kill()\n    {again}\n",
    )
    done = sweep.run(*ARGUMENTS)
    assert done.code == 130, done.out + done.err
    assert "Traceback" not in done.err
    assert sweep.flag.exists(), "the summary was interrupted as well"
    assert [sweep.statuses()[cell] for cell in CELLS] == STAGES["measuring"][1]
    assert not [pid for pid in sweep.engine_pids() if alive(pid)]


def test_interrupt_after_cleaning_up_has_hung_ends_the_sweep_at_once(sweep: Sweep) -> None:
    in_generate(sweep, "if len(requests) == 2: FLAG.touch(); import time; time.sleep(600)")
    sweep.inject("sweep.run.interrupts", "PATIENCE_S = 1.0")
    hang = """
def kill_descendants():
    FLAG.with_name("hangs").touch()
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass
"""
    sweep.inject("sweep.run.session", hang)
    process = sweep.start(*ARGUMENTS)
    sweep.wait_until(process, sweep.flag.exists)
    process.send_signal(signal.SIGINT)
    sweep.wait_until(process, sweep.flag.with_name("hangs").exists)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)  # the first of them comes too early
        time.sleep(0.2)
    out, err = process.communicate(timeout=240)
    assert (process.returncode, "Traceback" in err) == (130, False), out + err
    assert "sweep.report" in err
    assert not [pid for pid in sweep.engine_pids() if alive(pid)]
    assert sweep.run(str(sweep.folder), "--no-plots", module="sweep.report").code == 1
    assert [sweep.statuses()[cell] for cell in CELLS] == [("PASS", ""), INTERRUPTED, NOT_RUN, NOT_RUN]


def test_closed_terminal_does_not_end_a_sweep_that_ignores_it(sweep: Sweep) -> None:
    """As nohup starts it."""
    stop_at(sweep, "between groups", signal.SIGHUP)
    process = sweep.start(*ARGUMENTS, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    assert [sweep.statuses()[cell] for cell in CELLS] == [("PASS", "")] * 4


def test_closed_terminal_is_an_interrupt_though_nothing_can_be_printed(sweep: Sweep) -> None:
    """The sweep shows its live table on a terminal of its own, which goes away while it measures."""
    in_generate(sweep, "if len(requests) == 2: FLAG.touch(); import time; time.sleep(600)")
    ours, theirs = os.openpty()
    own = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True}

    def on_its_terminal() -> None:
        hear_a_hang_up()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = sweep.start(*ARGUMENTS, **own, preexec_fn=on_its_terminal)
    os.close(theirs)
    shown = b""
    while not (sweep.flag.exists() and b"of 4 cells" in shown) and process.poll() is None:
        if select.select([ours], [], [], 0.05)[0]:
            shown += os.read(ours, 65_536)
    os.close(ours)
    assert process.wait(240) == 130
    assert b"of 4 cells" in shown
    assert [sweep.statuses()[cell] for cell in CELLS] == [("PASS", ""), INTERRUPTED, NOT_RUN, NOT_RUN]
    assert not [pid for pid in sweep.engine_pids() if alive(pid)]


def test_interrupt_while_plots_are_drawn_keeps_the_summary(sweep: Sweep) -> None:
    stop = STOP.format(whom="os.getpid(),", signal=int(signal.SIGINT), stay=False)
    sweep.inject("sweep.report.drawing", f"def draw(*arguments, **options):\n    {stop}\n")
    done = sweep.run("-m", "engine=noop", "aa=0", "batch=1")
    assert done.code == 130, done.out + done.err
    assert sweep.statuses() == {"baseline b1": ("PASS", "")}
    assert not (sweep.folder / "report.html").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_interrupt_while_engines_are_imported(sweep: Sweep, number: int) -> None:
    """Before the engine's process exists: the process to fork it from still imports."""
    hang = "def import_all(modules):\n    _redirect()\n    FLAG.write_text(str(os.getpid()))\n    time.sleep(60)\n"
    sweep.inject("sweep.engines.process.forkserver", hang)
    process = sweep.start("-m", "baselines=true", "batch=1,2", "plots=false", "aa=0")
    sweep.wait_until(process, lambda: [event for event in sweep.events("cell") if event["state"] == "loading"])
    server = int(sweep.wait_until(process, lambda: sweep.flag.exists() and sweep.flag.read_text()))
    process.send_signal(number)
    out, err = process.communicate(timeout=240)
    assert (process.returncode, "Traceback" in err) == (130, False), out + err
    assert sweep.statuses() == {"baseline b1": INTERRUPTED, "baseline b2": NOT_RUN}
    assert not alive(server)
    assert list((sweep.base / "tmp").iterdir()) == []


def test_interrupt_ends_the_real_engine_and_its_ranks(sweep: Sweep) -> None:
    import psutil

    sweep.own_fork_server = True
    small = ("model=tiny_qwen_image", "workload.num_prompts=1", "workload.steps=2", "workload.repeats=1000")
    process = sweep.start("-m", "feature=cfg_parallel", "baselines=false", "plots=false", "aa=0", *small)
    sweep.wait_until(process, lambda: sweep.is_running("cfg_parallel b1"))
    started = psutil.Process(process.pid).children(recursive=True)
    (engine,) = sweep.engine_pids()
    assert len(started) >= 3, "server, engine and second rank"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 130, out + err
    assert sweep.statuses()["cfg_parallel b1"] == INTERRUPTED
    assert numbers(sweep.reason("cfg_parallel b1"))[:2] == [1, 1], "batch 1 of 1"
    assert not group_alive(engine)
    wait_for(lambda: not [child.pid for child in started if alive(child.pid)])  # multiprocessing's tracker is last
    assert list((sweep.base / "tmp").glob("sweep-*")) == []
