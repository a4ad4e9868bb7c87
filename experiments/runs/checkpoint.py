"""Everything that an exact resume needs, in one file that is there whole or not at all.

A checkpoint is an .npz: one array a variable, in the learner's order, and `state`, a JSON text with the step and the
loop's own numbers. It is read without unpickling, so a foreign file cannot run code; zip checksums find damage.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import Interrupted, RunError
from ..system.atomic import write_bytes_atomic

if TYPE_CHECKING:
    import tensorflow as tf

FORMAT = 1
SECONDS_BETWEEN = 120.0  # two of a training or of a test, so that a kill never costs more
OTHER = "{path} is a checkpoint of another model or version: use --fresh, or choose another --out"


def save(path: Path, variables: Sequence[tf.Variable | np.ndarray], state: dict[str, Any]) -> None:
    """Write the variables and a JSON-able `state`. OSError where the disk refuses; an older file stays as it was."""
    arrays: dict[str, Any] = {f"{number:04d}": np.asarray(variable) for number, variable in enumerate(variables)}
    buffer = io.BytesIO()
    np.savez(buffer, state=np.array(json.dumps({"format": FORMAT} | state)), **arrays)
    write_bytes_atomic(path, buffer.getvalue())


def read(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    """`state` and the values of the variables; RunError for a damaged, foreign or missing file. What says nothing of
    the file, an error of the disk or a stop, is passed on."""
    try:
        data = io.BytesIO(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError) as error:
        raise RunError(f"{path} is not a whole checkpoint ({error.strerror}): use --fresh to train again") from None
    try:
        with np.load(data, allow_pickle=False) as file:
            state = json.loads(str(file["state"]))
            arrays = [file[f"{number:04d}"] for number in range(len(file.files) - 1)]
    except (Interrupted, MemoryError):
        raise
    except Exception as error:  # what damage raises in zipfile, zlib and numpy is of a dozen kinds
        raise RunError(f"{path} is not a whole checkpoint ({error}): use --fresh to train again") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise RunError(OTHER.format(path=path))
    return state, arrays


def restore(path: Path, variables: Sequence[tf.Variable], keys: Collection[str] = ()) -> dict[str, Any]:
    """Assign the variables and return `state`, which has `keys`; RunError for a damaged or foreign file, which changes
    nothing."""
    state, arrays = read(path)
    wanted = [(tuple(variable.shape), variable.dtype.as_numpy_dtype) for variable in variables]
    if not state.keys() >= set(keys) or [(array.shape, array.dtype) for array in arrays] != wanted:
        raise RunError(OTHER.format(path=path))
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return state
