"""A reader of pickles from untrusted sources.

It returns numbers, texts, lists, dicts and plain numpy arrays. It refuses anything else without running it.

numpy's own `dtype.__setstate__` trusts its input: a dtype that hides its objects makes numpy follow pointers out of the
file. So stand-ins replace `numpy.dtype` and `numpy.ndarray`, and arrays hold only numbers, or texts of a fixed length.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from typing import IO, Any

import numpy as np

from ..errors import DataError, KnownError


class _PlainType:
    """Replace `numpy.dtype` by a number or a text by its name; only the byte order is taken from its state."""

    def __init__(self, name: str, *_: Any):
        if not re.fullmatch(r"[biufSU]\d+", name):
            raise pickle.UnpicklingError(f"it has an array of type {name}")
        self.plain = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *parts = state
        if any(part is not None for part in parts[:3]):  # subarray, names, fields
            raise pickle.UnpicklingError("it has an array of records")
        self.plain = self.plain.newbyteorder(order)


class _PlainArray(np.ndarray):
    """Replace `numpy.ndarray` by what a pickle can only fill with a plain type."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        version, shape, kind, fortran, data = state
        if any(length < 0 for length in shape):
            raise pickle.UnpicklingError(f"it has an array of shape {shape}")
        super().__setstate__((version, shape, kind.plain, fortran, data))


def _empty(*_: Any) -> _PlainArray:
    return _PlainArray(0, np.uint8)


def _scalar(kind: _PlainType, data: bytes | str) -> Any:
    return np.frombuffer(data if isinstance(data, bytes) else data.encode("latin1"), kind.plain)[0]


def _from_buffer(data: bytes | bytearray, kind: _PlainType, shape: tuple[int, ...], order: Any) -> np.ndarray:
    if not isinstance(data, bytes | bytearray):  # of an array, which the pickle could fill anew
        raise pickle.UnpicklingError(f"it has an array over a {type(data).__name__}")
    return np.frombuffer(data, kind.plain).reshape(shape, order=order)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    return text.encode("latin1")  # how protocols 0 to 2 write bytes


HARMLESS = {
    ("numpy", "ndarray"): None,  # an argument of _reconstruct, never called
    ("numpy", "dtype"): _PlainType,
    ("multiarray", "_reconstruct"): _empty,
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = re.sub(r"^numpy\._?core\.", "", module), name  # before numpy 2: numpy.core
        if known not in HARMLESS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return HARMLESS[known]


def load(file: IO[bytes], where: str) -> Any:
    """Return what is in a pickle of arrays, lists and dicts; `where` is its name for messages.

    Raises:
        DataError: The pickle holds anything else; no code in it is run.
    """
    try:
        return _ArrayUnpickler(file, encoding="latin1").load()
    except KnownError:
        raise  # such as a request to stop
    except Exception as error:  # a malformed pickle raises almost anything
        raise DataError(f"{where} is not a pickle of plain arrays ({error}): nothing in it was run") from None


def load_arrays(file: IO[bytes], where: str) -> dict[str, Any]:
    """Return the dict in a pickle of arrays, see `load`."""
    content = load(file, where)
    if not isinstance(content, dict):
        raise DataError(f"{where} holds a {type(content).__name__}, not a dict of arrays")
    return content
