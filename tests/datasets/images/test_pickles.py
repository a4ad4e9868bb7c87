"""Pickles that people bring: arrays come out, nothing in them is run."""

import contextlib
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from metarun.datasets.errors import DataError, KnownError
from metarun.datasets.images import pickles


def load_arrays(path):
    with path.open("rb") as file:
        return pickles.load_arrays(file, str(path))


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("where", ["alone", "in a dict", "in an array"])
def test_a_hostile_pickle_runs_nothing(tmp_path, where):
    evil = Hostile(tmp_path / "ran")
    told = {"alone": evil, "in a dict": {"image_data": evil}, "in an array": {"a": np.array([evil], dtype=object)}}[
        where
    ]
    path = tmp_path / "mini-imagenet-cache-train.pkl"
    path.write_bytes(pickle.dumps(told))
    with pytest.raises(DataError, match="nothing in it was run"):
        load_arrays(path)
    assert not (tmp_path / "ran").exists()
    with contextlib.suppress(Exception):
        pickle.loads(path.read_bytes())  # the wrong variant runs it
    assert (tmp_path / "ran").exists()


class Disguised:
    """Feign an array of pointers into nowhere whose dtype, by its pickled flags, has no objects in it."""

    def __reduce__(self):
        rebuild, arguments, _ = np.zeros(4).__reduce__()
        return rebuild, arguments, (1, (4,), DisguisedType(), False, b"A" * 32)


class DisguisedType:
    def __reduce__(self):
        rebuild, arguments, state = np.dtype([("x", "O")]).__reduce__()
        return rebuild, arguments, (*state[:7], 0)  # the last one: the flags


def test_a_pickle_cannot_disguise_pointers_as_numbers(tmp_path):
    path = tmp_path / "mini-imagenet-cache-train.pkl"
    path.write_bytes(pickle.dumps({"image_data": np.zeros((1, 84, 84, 3), np.uint8), "labels": Disguised()}))
    sort = "import sys, numpy\nfrom pathlib import Path\n{}\nnumpy.unique(told['labels'])"
    load = "from metarun.datasets.images import pickles\ntold = pickles.load_arrays(open(sys.argv[1], 'rb'), 'x')"
    wrong = "import pickle\ntold = pickle.loads(Path(sys.argv[1]).read_bytes())"
    safe, unsafe = (
        subprocess.run([sys.executable, "-c", sort.format(way), path], capture_output=True, text=True)
        for way in (load, wrong)
    )
    assert safe.returncode == 1 and "DataError" in safe.stderr and "nothing in it was run" in safe.stderr
    assert unsafe.returncode < 0, "numpy's own dtype follows the pointers"


class OverAnArray:
    """Give a view of an array that the pickle could fill anew, which frees what the view looks at."""

    def __reduce__(self):
        numbers = np.zeros(8, np.uint8)
        return numbers.__reduce_ex__(5)[0], (numbers, np.dtype("u1"), (8,), "C")


def test_no_array_looks_at_the_memory_of_another(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"a": OverAnArray()}))
    with pytest.raises(DataError, match="it has an array over a _PlainArray"):
        load_arrays(path)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_arrays_come_out_of_every_protocol(tmp_path, protocol):
    told = {
        "images": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        "by column": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big-endian": np.array([1, 258], ">i8"),
        "texts": np.array(["n01", "longer"]),
        "bytes": np.array([b"n01"]),
        "number": np.int64(5),
    }
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(told, protocol))
    for name, array in load_arrays(path).items():
        np.testing.assert_array_equal(array, told[name])
    assert load_arrays(path)["images"].dtype == np.uint8


@pytest.mark.parametrize("array", [np.zeros(2, [("x", "f4")]), np.array([{}], object), np.zeros(2, "M8[s]")])
def test_arrays_of_anything_but_numbers_and_texts_are_refused(tmp_path, array):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"a": array}))
    with pytest.raises(DataError, match="it has an array of type"):
        load_arrays(path)


@pytest.mark.parametrize("data", [b"", b"nonsense", pickle.dumps([1])[:-1], pickle.dumps([1])])
def test_pickles_that_are_no_dict_of_arrays(tmp_path, data):
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.pkl"):
        load_arrays(path)


def test_a_request_to_stop_is_not_told_as_a_bad_pickle(tmp_path, monkeypatch):
    class Stopped(KnownError):
        pass

    def stop(self):
        raise Stopped("stopped")

    monkeypatch.setattr(pickles._ArrayUnpickler, "load", stop)
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({}))
    with pytest.raises(Stopped):
        load_arrays(path)
