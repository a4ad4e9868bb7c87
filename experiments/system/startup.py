"""Import TensorFlow with its fast kernels and without its start-up messages."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from . import signals
from .streams import text_stream


def fast_kernels() -> dict[str, str]:
    """Return the environment variables that switch on oneDNN's kernels and are not set yet.

    They must be set before TensorFlow is imported. TensorFlow by itself uses oneDNN only on processors with AVX-512
    VNNI, AVX-VNNI or AMX. With AVX2 alone oneDNN's convolutions are 1.5 to 2.3 times as fast as TensorFlow's own.
    TF_ENABLE_ONEDNN_OPTS=0 turns them off.
    """
    settled = "TF_ENABLE_ONEDNN_OPTS" in os.environ or platform.machine().lower() not in ("x86_64", "amd64")
    return {} if settled else {"TF_ENABLE_ONEDNN_OPTS": "1"}


def import_tensorflow() -> None:
    """Import TensorFlow.

    Without -v, messages that its libraries print while they load are dropped. Errors still raise. From here on signals
    are looked at with `signals.check` alone.

    Raises Interrupted if a signal came during the import.
    """
    signals.check_from_now_on()
    os.environ.update(fast_kernels())
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever backend the user has set for Keras
    with signals.nothing_begun():
        if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") == "0":
            import tensorflow

            return
        with _silent_standard_error():
            import tensorflow
        tensorflow.get_logger().setLevel("ERROR")


def silence_libraries() -> None:
    """Hide all later messages of the C++ libraries, unless -v is given. sys.stderr still prints."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") == "0":
        return
    sys.stderr = text_stream(os.dup(2))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@contextmanager
def _silent_standard_error() -> Iterator[None]:
    """Hide messages inside the block that C++ libraries write to file descriptor 2, past sys.stderr."""
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
