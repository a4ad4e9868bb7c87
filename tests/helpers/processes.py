"""`metarun` in processes of its own, forked from one that has TensorFlow: importing it in each would take half of the
time of the tests that start many. What they print, how they end and what a signal does to them is as ever."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
CONTEXT.set_forkserver_preload(["tensorflow", "keras", "metarun.experiments.training.train"])


class Started:
    """Run `metarun ARGUMENTS`, with more in the environment; as much of subprocess.Popen as the tests use."""

    def __init__(self, *arguments: object, program: Callable[[], object] | None = None, **environment: str) -> None:
        """Start the process. `program`, if any, is called in place of metarun's: a function of a module in this
        folder, for the process has this folder on its path and not the one above it."""
        self._arguments = list(map(str, arguments))
        self._printed = tempfile.TemporaryDirectory()
        told = (self._arguments, program, os.environ | environment, os.getcwd(), self._printed.name)
        self._process = CONTEXT.Process(target=_main, args=told, daemon=True)
        self._process.start()

    def send_signal(self, number: int) -> None:
        if self.poll() is None and self._process.pid:
            os.kill(self._process.pid, number)

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""
        return self._process.exitcode

    def wait(self, seconds: float = 1200) -> subprocess.CompletedProcess[str]:
        """Wait for the end; return the exit code and the output. Kill the process if it takes longer."""
        self._process.join(seconds)
        late = self.poll() is None
        self._process.kill()
        self._process.join()
        printed = [Path(self._printed.name, name).read_text() for name in ("1", "2")]
        if late:
            raise subprocess.TimeoutExpired(self._arguments, seconds, *printed)
        return subprocess.CompletedProcess(self._arguments, self._process.exitcode, *printed)


def metarun(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return Started(*arguments, **options).wait()


def dying(last: str, within: str = "") -> None:
    """Run `metarun`, killed before the file `last`, with `within` in its path, gets its name."""
    from metarun.cli.main import main

    replace = Path.replace

    def die(self, target):
        if Path(target).name == last and within in str(target):
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    Path.replace = die
    main()


def stopping(worker: int = 0) -> None:
    """Run `metarun`; the worker of this number sends itself SIGTERM after some training steps, at most 31."""
    from metarun.cli.main import main
    from metarun.experiments.training.steps import TrainingSteps

    taken, original = [], TrainingSteps.take

    def stop(self, count):
        metrics = original(self, count)
        taken.append(count)
        if len(taken) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return metrics

    if json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {"index": 0})["index"] == worker:
        TrainingSteps.take = stop
    main()


def counting_traces() -> None:
    """Run `metarun`, and print at the end how often its training step was traced."""
    from metarun.cli.main import main
    from metarun.experiments.training.steps import TrainingSteps

    traces, original = [], TrainingSteps._update

    def counted(self, task):
        traces.append(task)
        return original(self, task)

    TrainingSteps._update = counted
    try:
        main()
    finally:
        print(f"traced: {len(traces)}")


def unheard() -> None:
    """Run `metarun` with standard streams that cannot be written, in the way that HOW says."""
    from metarun.cli.main import main

    if os.environ["HOW"] == "closed streams":
        os.closerange(1, 3)
        sys.stdout = sys.stderr = None  # as Python has it then  # pyright: ignore[reportAttributeAccessIssue]
    else:
        reader, writer = os.pipe()
        if os.environ["HOW"] == "full disk":
            writer = os.open("/dev/full", os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(writer, descriptor)
        os.close(reader)
        os.close(writer)
    main()


def _main(
    arguments: list[str],
    program: Callable[[], object] | None,
    environment: Mapping[str, str],
    folder: str,
    printed: str,
) -> None:
    for descriptor in (1, 2):
        os.dup2(os.open(f"{printed}/{descriptor}", os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["metarun", *arguments]
    if program is None:
        from metarun.cli.main import main as program

    program()
