"""Import TensorFlow with its fast kernels and without its start-up messages."""

from __future__ import annotations

import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import RunError


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

    Without -v, messages that its libraries print while they load are dropped. Errors still raise.

    Raises RunError where a file of the user's keeps Keras from being imported.
    """
    os.environ.update(fast_kernels())
    ignore_settings_of_libraries()
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0") == "0":
        import tensorflow

        _import_keras()
        return
    with _silent_standard_error():
        import tensorflow

        _import_keras()
    tensorflow.get_logger().setLevel("ERROR")


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
    for name in ("TF_USE_LEGACY_KERAS", "TF2_BEHAVIOR", "PYTHONWARNINGS"):
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
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
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
