"""TensorFlow without its start-up chatter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def import_tensorflow() -> None:
    """Import TensorFlow; without -v, what its libraries print while they load is dropped (errors raise as ever)."""
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") == "0":
        import tensorflow

        return
    with _silent_standard_error():
        import tensorflow
    tensorflow.get_logger().setLevel("ERROR")


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
