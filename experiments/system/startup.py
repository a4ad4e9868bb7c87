"""TensorFlow with its fast kernels, without its start-up chatter."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def fast_kernels() -> dict[str, str]:
    """What the environment lacks, before TensorFlow is imported, for convolutions in oneDNN's kernels.

    TensorFlow itself takes those only on processors with AVX-512 VNNI, AVX-VNNI or AMX; with AVX2 alone they are 1.5 to
    2.3 times as fast as its own. TF_ENABLE_ONEDNN_OPTS=0 turns them off.
    """
    told = "TF_ENABLE_ONEDNN_OPTS" in os.environ or platform.machine().lower() not in ("x86_64", "amd64")
    return {} if told else {"TF_ENABLE_ONEDNN_OPTS": "1"}


def import_tensorflow() -> None:
    """Import TensorFlow; without -v, what its libraries print while they load is dropped (errors raise as ever)."""
    os.environ.update(fast_kernels())
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever else the user does with Keras
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") == "0":
        import tensorflow

        return
    with _silent_standard_error():
        import tensorflow
    tensorflow.get_logger().setLevel("ERROR")


def silence_libraries() -> None:
    """From here on what the C++ libraries print is dropped, without -v; sys.stderr goes where it went."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") == "0":
        return
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@contextmanager
def _silent_standard_error() -> Iterator[None]:
    """The C++ libraries write to file descriptor 2, past sys.stderr."""
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
