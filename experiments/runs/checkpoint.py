"""Write and read checkpoints: one file, written atomically, with everything that an exact resume needs.

A checkpoint is an .npz file: one array per variable, in the learner's order, and `state`, a JSON text with the step and
the numbers of the loop. It is read without unpickling, so a foreign file cannot run code, and it cannot ask for more
memory than it has bytes. Zip checksums find damage.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import Interrupted, RunError
from ..system.atomic import write_bytes_atomic

if TYPE_CHECKING:
    import tensorflow as tf

FORMAT = 1
SECONDS_BETWEEN = 120.0  # between two checkpoints of a training or of a test: the most that a kill can cost
OTHER = "{path} is a checkpoint of another model or version: use --fresh, or choose another --out"


def save(path: Path, variables: Sequence[tf.Variable | np.ndarray], state: dict[str, Any]) -> None:
    """Write a checkpoint of the variables and the state.

    Args:
        path: the file; it is replaced when the new one is whole.
        variables: their values, in the order in which they are restored.
        state: values that fit into JSON.

    Raises:
        OSError: the disk refuses. An older file then stays as it was.
    """
    arrays: dict[str, Any] = {f"{number:04d}": np.asarray(variable) for number, variable in enumerate(variables)}
    buffer = io.BytesIO()
    np.savez(buffer, state=np.array(json.dumps({"format": FORMAT} | state)), **arrays)
    write_bytes_atomic(path, buffer.getvalue())


def read(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return the state and the values of the variables.

    Raises:
        RunError: the file is damaged, foreign or missing.
        OSError, Interrupted, MemoryError: passed on, since they say nothing about the file.
    """
    try:
        data = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise RunError(f"{path} is not a whole checkpoint ({error.strerror}): use --fresh to train again") from None
    return parse(data, path)


def parse(data: bytes, path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return the state and the values of the variables in the bytes of a checkpoint, see `read`.

    `path` is the file, for messages.
    """
    try:
        _refuse_growing(data)
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            state = json.loads(str(file["state"]))
            arrays = [file[f"{number:04d}"] for number in range(len(file.files) - 1)]
    except (Interrupted, MemoryError):
        raise
    except Exception as error:  # damage raises a dozen kinds of errors in zipfile, zlib and numpy
        raise RunError(f"{path} is not a whole checkpoint ({error}): use --fresh to train again") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise RunError(OTHER.format(path=path))
    return state, arrays


def _refuse_growing(data: bytes) -> None:
    """Raise ValueError for a file whose arrays need more memory than it has bytes: `save` compresses nothing."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = archive.infolist()
        if sum(info.file_size for info in infos) > len(data):
            raise ValueError("its arrays are larger than the file")
        for info in infos:
            with archive.open(info) as file:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                if math.prod(shape) * dtype.itemsize != info.file_size - file.tell():
                    raise ValueError(f"{info.filename} is not as large as it says")


def digest_of(arrays: Sequence[tf.Variable | np.ndarray]) -> str:
    """Return 16 hexadecimal digits of a hash of the values of all variables of a checkpoint; "" for none."""
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()[:16] if len(arrays) else ""


def restore(path: Path, variables: Sequence[tf.Variable], keys: Collection[str] = ()) -> dict[str, Any]:
    """Assign the values of a checkpoint to the variables, and return its state.

    Args:
        path: the file.
        variables: variables of the same number, shapes and dtypes as those that were saved.
        keys: keys that the state must have.

    Raises:
        RunError: the file is damaged or of another model. No variable is changed then.
    """
    state, arrays = read(path)
    wanted = [(tuple(variable.shape), variable.dtype.as_numpy_dtype) for variable in variables]
    if not state.keys() >= set(keys) or [(array.shape, array.dtype) for array in arrays] != wanted:
        raise RunError(OTHER.format(path=path))
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return state
