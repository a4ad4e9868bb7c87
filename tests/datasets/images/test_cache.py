"""The dataset cache: prepared once however many want it, whole or not there, damage found."""

import errno
import gc
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from pictures import png

from metarun.cli.data import command as data
from metarun.cli.data import fetch
from metarun.datasets import imagefolder
from metarun.datasets.errors import DataError
from metarun.datasets.images import cache, leftovers
from metarun.datasets.options import ImageFolderOptions


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("METARUN_CACHE", str(tmp_path))
    return tmp_path


def prepared(value=7):
    images = np.full((6, 4, 4, 1), value, np.uint8)
    return cache.Prepared(images, np.array([2, 4]), ("a", "b"), {"fact": 1})


def verify(report=bool):
    return cache.verify("x", cache.read("x"), report)


def refuse():
    raise AssertionError("prepared again")


def test_what_a_killed_process_left_is_cleared_away(folder):
    for name in (".x.npy.1", ".x.json.1", ".xy.npy.1"):
        (folder / name).write_text("half")
    cache.load("x", prepared)
    assert [path.name for path in folder.glob(".*[0-9]")] == [".xy.npy.1"]


def test_what_is_stored_comes_back():
    first = cache.load("x", prepared)
    again = cache.load("x", refuse)
    np.testing.assert_array_equal(first.images, prepared().images)
    assert again.names == ("a", "b") and again.facts == {"fact": 1} and again.counts.tolist() == [2, 4]
    assert again.digest == first.digest == cache.content_digest(prepared().images)
    assert isinstance(again.images, np.memmap), "many processes share one copy in memory"


@pytest.mark.parametrize("damage", ["truncated", "longer", "no array", "foreign description", "other format"])
def test_damage_is_found_and_mended(damage, capsys):
    cache.load("x", prepared)
    array, description = cache.array_path("x"), cache.description_path("x")
    if damage == "truncated":
        array.write_bytes(array.read_bytes()[:-5])
    elif damage == "longer":
        array.write_bytes(array.read_bytes() + b"x")
    elif damage == "no array":
        array.unlink()
    elif damage == "foreign description":
        description.write_text("[1, 2")
    else:
        description.write_text(json.dumps(json.loads(description.read_text()) | {"format": 0}))
    again = cache.load("x", lambda: prepared(9))
    assert again.images.min() == 9 and verify() == "good"
    assert damage == "other format" or "is damaged" in capsys.readouterr().err


def test_verify_reads_every_byte():
    assert verify() == "absent"
    cache.load("x", prepared)
    counted = []
    assert verify(counted.append) == "good" and sum(counted) == 6
    content = bytearray(cache.array_path("x").read_bytes())
    content[-1] ^= 1  # the same size: only the digest tells
    cache.array_path("x").write_bytes(content)
    assert cache.read("x") is not None and verify() == "damaged"


def test_fetch_mends_what_verify_calls_damaged(monkeypatch):
    cache.load("omniglot", prepared)
    assert "is here already" in CliRunner().invoke(fetch, ["omniglot"]).output
    content = bytearray(cache.array_path("omniglot").read_bytes())
    content[-1] ^= 1
    cache.array_path("omniglot").write_bytes(content)
    monkeypatch.setattr("metarun.datasets.omniglot.download", lambda *_: [])
    monkeypatch.setattr("metarun.datasets.omniglot.prepare", lambda _: prepared(9))
    assert "is ready in" in CliRunner().invoke(fetch, ["omniglot"]).output
    assert cache.verify("omniglot", cache.read("omniglot")) == "good"


def test_verify_survives_a_damaged_description():
    cache.load("x", prepared)
    cache.description_path("x").write_text("{")
    assert verify() == "damaged"


def test_a_process_that_dies_while_preparing_leaves_nothing_half():
    def die():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.load("x", die)
    assert cache.read("x") is None
    assert cache.load("x", prepared).images.min() == 7


def test_twenty_processes_prepare_once(folder):
    program = """
import sys, time
import numpy as np
from pathlib import Path
from metarun.datasets.images import cache

def prepare():
    with open(sys.argv[1], "a") as file:
        file.write("once\\n")
    time.sleep(0.3)
    return cache.Prepared(np.full((6, 4, 4, 1), 7, np.uint8), np.array([2, 4]), ("a", "b"), {})

assert cache.load("x", prepare).images.sum() == 7 * 96
"""
    log = folder / "log"
    processes = [subprocess.Popen([sys.executable, "-c", program, str(log)]) for _ in range(20)]
    assert [process.wait(timeout=600) for process in processes] == [0] * 20
    assert log.read_text() == "once\n"


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("METARUN_CACHE", str(blocked / "cache"))
    with pytest.raises(DataError, match="cannot write to the cache .*set METARUN_CACHE"):
        cache.load("x", prepared)


def test_a_full_disk_is_named_and_leaves_nothing(monkeypatch):
    import errno

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="the disk is full"):
        cache.load("x", prepared)
    assert not [path for path in cache.folder().iterdir() if not path.name.endswith(".lock")]


@pytest.fixture
def pictures(tmp_path):
    """Write an image folder beside the cache; return its path."""
    for name in "abc":
        (tmp_path / "imgs" / name).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "imgs" / name / f"{number}.png").write_bytes(png(10 * ord(name) % 256 + number, (8, 8)))
    return tmp_path / "imgs"


def touched(pictures, times=1):
    """Prepare a folder, and again after each of so many changes."""
    for number in range(times + 1):
        source = imagefolder.build(ImageFolderOptions(path=pictures, image_size=8))
        os.utime(pictures / "a" / "0.png", ns=(number, number))
    return source


def test_fault_27_copies_of_image_folders_are_listed_and_cleaned(folder, pictures, capsys):
    """Touch images, each of which leaves a copy of the whole folder. Rejected: nothing shows and nothing removes
    them."""
    touched(pictures, 2)
    imagefolder.build(ImageFolderOptions(path=pictures, image_size=8))  # the folder as it is
    (folder / ".imagefolder-x.npy.1").write_bytes(bytes(1000))
    (folder / "glyphs-old.npy").write_bytes(b"")
    (folder / "glyphs-old.json").write_text('{"facts": {}}')
    (folder / "foreign.json").write_text('{"facts": {}}')
    listed = CliRunner().invoke(data, ["list"]).output
    assert listed.count(f" MB, {pictures}: 3 classes, 6 images of 8x8x3") == 4
    before = sorted(folder.iterdir())
    told = CliRunner().invoke(data, ["clean", "--dry-run"]).output
    assert told.count(f"{pictures}: 3 classes, 6 images of 8x8x3: the folder has changed") == 3
    assert "drawn with another version" in told and "left by a process that was killed" in told
    assert CliRunner().invoke(data, ["clean"], input="n\n").exit_code == 1
    assert sorted(folder.iterdir()) == before
    assert "removed" in CliRunner().invoke(data, ["clean"], input="y\n").output
    left = [path.name for path in folder.glob("*.npy")]
    assert len(left) == 1 and (folder / "foreign.json").exists() and not list(folder.glob(".*.npy*"))
    assert CliRunner().invoke(data, ["clean", "--yes"]).output.startswith("nothing in ")
    shutil.rmtree(pictures)
    assert "the folder is not on this machine" in CliRunner().invoke(data, ["clean", "--yes"]).output
    assert not list(folder.glob("imagefolder-*"))


def test_fault_27_what_a_process_reads_is_left(folder, pictures):
    """Keep a file that is mapped: on a disk of another machine, losing it may end the process."""
    source = touched(pictures)
    program = "import sys; from metarun.datasets.images import cache; print(cache.discard(sys.argv[1]))"
    (name,) = [path.stem for path in folder.glob("imagefolder-*.npy")][:1] or [""]
    names = [path.stem for path in folder.glob("imagefolder-*.npy")]
    used = [each for each in names if not cache.discard(each)]
    assert len(names) == 2 and len(used) == 1 and name in names
    run = lambda: subprocess.run([sys.executable, "-c", program, used[0]], capture_output=True, text=True).stdout  # noqa: E731
    assert run() == "False\n" and source.pools["train"].images.any()
    del source
    gc.collect()
    assert run() == "True\n" and not list(folder.glob("imagefolder-*"))


def test_what_is_being_prepared_is_left(folder):
    (folder / ".imagefolder-x.npy.1").write_bytes(b"half")
    with cache.locked("imagefolder-x"):
        (found,) = leftovers.stale()
        assert not leftovers.discard(found)
    assert leftovers.discard(found) and not list(leftovers.stale())


def test_fault_27_a_lock_that_another_user_made_is_held_too(folder, monkeypatch):
    """Reject a lock file of mode 0644, which shuts out the second member of a group."""
    (folder / ".x.lock").touch(0o444)
    original = os.open

    def refuse(path, flags, *mode, **options):
        if flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", refuse)
    with cache.locked("x"), pytest.raises(DataError, match="another process"), cache.locked("x", wait=False):
        pass
