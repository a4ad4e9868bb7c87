"""Pickles from strangers: numbers, texts, lists, dicts and numpy arrays come out; anything else is refused unrun."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from .errors import DataError

HARMLESS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in HARMLESS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def load_arrays(path: Path) -> dict[str, Any]:
    """The dict in a pickle of arrays; DataError for anything else, before any code in it could run."""
    try:
        with open(path, "rb") as file:
            told = _ArrayUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a malformed pickle raises almost anything
        raise DataError(f"{path} is not a pickle of plain arrays ({error}): nothing in it was run") from None
    if not isinstance(told, dict):
        raise DataError(f"{path} holds a {type(told).__name__}, not a dict of arrays")
    return told
