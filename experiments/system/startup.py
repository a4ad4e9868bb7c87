"""Import TensorFlow with its fast kernels and without its start-up messages."""

from __future__ import annotations

import gc
import os
import platform
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import NoReturn

from ...datasets.errors import KnownError
from ...datasets.plugins import installed_version
from ..errors import RunError
from . import gpus, signals
from .processors import SCHEDULER, limited_threads
from .streams import text_stream

SCHEDULER_NAME = SCHEDULER.partition("=")[0]
HAVE_SCHEDULER = ("2.21.",)  # versions of TensorFlow
LIVES = b"\0still running\0"
ENDED = (
    b"\nerror: the process ended while it imported TensorFlow; the lines above, if there are any, are the last that it "
    b"wrote. Install a TensorFlow that fits this processor and system, or look at it alone: "
    b"python -X faulthandler -c 'import tensorflow'\n"
)


def fast_kernels() -> dict[str, str]:
    """Return the environment variables that switch on oneDNN's kernels and are not set yet.

    They must be set before TensorFlow is imported. TensorFlow by itself uses oneDNN only on processors with AVX-512
    VNNI, AVX-VNNI or AMX. With AVX2 alone oneDNN's convolutions are 1.5 to 2.3 times as fast as TensorFlow's own.
    TF_ENABLE_ONEDNN_OPTS=0 turns them off.
    """
    settled = "TF_ENABLE_ONEDNN_OPTS" in os.environ or platform.machine().lower() not in ("x86_64", "amd64")
    return {} if settled else {"TF_ENABLE_ONEDNN_OPTS": "1"}


def one_after_another() -> dict[str, str]:
    """Return XLA_FLAGS with a flag that has XLA's programs on a CPU compute their operations one after another.

    By itself XLA hands each operation that is ready to another thread. Where the cores are busy, that takes longer than
    the small operations of a fully connected network do: with the flag W10 of the benchmarks takes 0.8 of the time
    beside other work, and as long as before alone. No bit changes. Large operations use all threads as before. XLA ends
    a process that gives it a flag that it does not know, so the flag is for versions of TensorFlow that have it.
    """
    given = os.environ.get("XLA_FLAGS", "")
    known = installed_version("tensorflow").startswith(HAVE_SCHEDULER)
    return {"XLA_FLAGS": f"{given} {SCHEDULER}".strip()} if known and SCHEDULER_NAME not in given else {}


def import_tensorflow(needs_gpu: bool | None = False) -> None:
    """Import TensorFlow, set to share GPUs with other processes, and warn of a GPU that it does not see.

    Without -v, messages that its libraries print while they load are dropped, unless they end the process. From here on
    signals are looked at with `signals.check` alone.

    Args:
        needs_gpu: to work on the CPU instead is an error; None: GPUs do not matter, and nothing is said of them.

    Raises:
        RunError: TensorFlow or Keras cannot be imported, or TensorFlow lists no GPU and one is needed.
        Interrupted: a signal came during the import.
    """
    signals.check_from_now_on()
    os.environ.update(fast_kernels() | one_after_another() | limited_threads() | gpus.settings())
    ignore_settings_of_libraries()
    shown = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") == "0"
    try:
        with signals.nothing_begun(), nullcontext() if shown else _only_last_words(), _quickly():
            import tensorflow

            _import_keras()
    except KnownError:
        raise
    except Exception as error:  # a package that is missing, a library that cannot be loaded or is of another version
        raise RunError(
            f"TensorFlow cannot be imported ({type(error).__name__}: {' '.join(str(error).split())[:300]}): install "
            "metarun and what it needs again, in a new virtual environment"
        ) from error
    if not shown:
        tensorflow.get_logger().setLevel("ERROR")
    if needs_gpu:
        gpus.require()
    elif needs_gpu is not None:
        gpus.warn_of_unused()


@contextmanager
def _quickly() -> Iterator[None]:
    """Import in the block without what takes time for nothing, half of TensorFlow's import.

    The collector of garbage is off: it would go through all modules again and again, and none ever becomes garbage. It
    leaves them out later too. And Keras does not find matplotlib, of which it imports pyplot for its own galleries.
    """
    if "tensorflow" in sys.modules:  # so that objects of other work are not left out
        yield
        return
    collects, hidden = gc.isenabled(), "matplotlib" not in sys.modules
    gc.disable()
    if hidden:
        sys.modules["matplotlib"] = None  # pyright: ignore[reportArgumentType]
    try:
        yield
    finally:
        if hidden:
            del sys.modules["matplotlib"]
        gc.freeze()
        if collects:
            gc.enable()


def _import_keras() -> None:
    try:
        import keras  # noqa: F401
    except ValueError as error:  # Keras does not start with a keras.json that has other values than it knows
        folder = os.environ.get("KERAS_HOME", "~/.keras")
        raise RunError(f"Keras cannot be imported: {error} Mend or remove {folder}/keras.json") from None


def ignore_settings_of_libraries() -> None:
    """Change the environment so that what a user has set for other programs decides nothing here.

    The files of these libraries, matplotlibrc and keras.json, are overruled where they would count: in
    `figures/style.py` and in `model.py`.
    """
    os.environ |= {"KERAS_BACKEND": "tensorflow", "MPLBACKEND": "agg"}  # one that is not installed ends the import
    for name in ("TF_USE_LEGACY_KERAS", "TF2_BEHAVIOR", "PYTHONWARNINGS", "NVIDIA_TF32_OVERRIDE"):
        os.environ.pop(name, None)
    if sys.warnoptions:  # such as "error"; from here on as Python does by itself
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)
        sys.warnoptions.clear()


def silence_libraries() -> None:
    """Hide all later messages of the C++ libraries, unless -v is given. sys.stderr still prints."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") == "0":
        return
    sys.stderr = text_stream(os.dup(2))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@contextmanager
def _only_last_words() -> Iterator[None]:
    """Hide messages inside the block that C++ libraries write to file descriptor 2, past sys.stderr.

    A library that aborts ends this process at once. So the messages go to another process, which prints the last of
    them if this one ends inside the block.
    """
    reader, writer = os.pipe()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOPPING)
    if (watcher := os.fork()) == 0:  # where signals stay blocked: they are meant for this process
        os.close(writer)
        _print_last_words(reader)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.close(reader)
    signals.say_before_end(lambda: os.write(writer, LIVES))
    saved = os.dup(2)
    os.dup2(writer, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        signals.say_before_end(None)
        os.write(writer, LIVES)
        os.close(writer)
        os.waitpid(watcher, 0)


def _print_last_words(reader: int) -> NoReturn:
    """Read messages up to `LIVES`, or up to the end of the process that writes them, which is told. Does not return."""
    try:
        words = b""
        while not words.endswith(LIVES) and (more := os.read(reader, 4096)):
            words = (words + more)[-2000:]
        if not words.endswith(LIVES):
            os.write(2, words.rstrip() + ENDED)
    finally:
        os._exit(0)
