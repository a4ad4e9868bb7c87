"""The classes of a folder of images, and what in it is left out. No TensorFlow.

The classes are class/*.png, or train|val|test/class/*.png. Without train, val and test folders they are divided by
`split`, in a random order that depends only on their names and `split_seed`.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError, counted, first_of
from ..options import UNDIVIDED, ImageFolderOptions
from . import decode

SPLITS = ("train", "val", "test")
DECODER = 4  # changes where the same files give other pixels or facts than before
OF_SYSTEMS = {"thumbs.db", "desktop.ini", "icon\r"}  # what file managers leave behind
SHOWN = 3  # examples in a message
Classes = list[tuple[str, list[Path]]]  # name and image files, sorted by name


class Found(NamedTuple):
    """Hold the content of a folder."""

    classes: dict[str, Classes]  # {"all": classes}, or per split where the folder has train, val and test
    left_out: list[str]  # each with its number, its reason and examples


class _LeftOut:
    """Collect names that are left out of a folder, by kind, as paths from the folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.files: list[str] = []  # of other kinds
        self.folders: list[str] = []  # inside classes
        self.beside: list[str] = []  # images beside the class folders
        self.nothing: list[str] = []  # links to nothing, pipes
        self.classes: list[str] = []  # without an image that is read

    def add(self, kind: list[str], path: Path | str) -> None:
        """Add a path to one of the lists."""
        kind.append(os.path.relpath(path, self.folder))

    def told(self) -> Iterator[str]:
        """Yield a sentence for each kind."""
        if self.files:
            endings = Counter(os.path.splitext(each)[1].lower() or "no ending" for each in self.files)
            counts = ", ".join(f"{number} {ending}" for ending, number in endings.most_common(10))
            yield f"{counted(len(self.files), 'file')} of kinds that are not read: {counts} (such as {self.files[0]})"
        if self.folders:
            yield f"{counted(len(self.folders), 'folder')} deeper than <class>/<image>: {first_of(self.folders, SHOWN)}"
        if self.beside:
            yield f"{counted(len(self.beside), 'image')} beside the class folders: {first_of(self.beside, SHOWN)}"
        if self.nothing:
            yield f"{counted(len(self.nothing), 'name')} of no readable file: {first_of(self.nothing, SHOWN)}"
        if self.classes:
            whole = counted(len(self.classes), "whole class", "whole classes")
            yield f"{whole} without an image that is read: {first_of(self.classes, 10)}"


def find(folder: Path) -> Found:
    """Return the classes of a folder, and what in it is left out.

    Raises:
        DataError: There is no folder, it cannot be read, or it has no class with images, or no training or test class.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: dataset.path must hold class folders with images")
    left_out = _LeftOut(folder)
    names = {Path(each).name for each in _listed(folder)[0]}
    if "train" in names and names <= set(SPLITS):
        classes = {split: _classes(folder / split, f"{split}/", left_out) for split in SPLITS if split in names}
        left_out.beside += _images_in(folder)
        if missing := [split for split in ("train", "test") if not classes.get(split)]:
            raise DataError(f"{folder} has no classes with images in {' and '.join(missing)}/{_because(left_out)}")
        return Found(classes, list(left_out.told()))
    found = _classes(folder, "", left_out)
    if not found and "train" in names:
        others = ", ".join(sorted(names - set(SPLITS)))
        raise DataError(f"{folder} has other folders beside train, val and test: move {others} elsewhere")
    if not found:
        endings = ", ".join(decode.FORMATS)
        raise DataError(
            f"{folder} has no class folders with images ({endings}): expected {folder}/<class>/<image>"
            + _because(left_out)
        )
    return Found({"all": found}, list(left_out.told()))


def _because(left_out: _LeftOut) -> str:
    told = "; ".join(left_out.told())
    return f"; left out: {told}" if told else ""


def find_classes(folder: Path) -> dict[str, Classes]:
    """Return the classes of a folder as {"all": classes}, or per split where it has these folders, see `find`."""
    return find(folder).classes


def classes_in(folder: Path) -> Found:
    """Return the class folders directly in a folder, whatever their names are, and what is left out.

    Raises:
        DataError: There is no folder, it cannot be read, or no folder in it has images.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: expected {folder}/<class>/<image>")
    left_out = _LeftOut(folder)
    if not (classes := _classes(folder, "", left_out)):
        endings = ", ".join(decode.FORMATS)
        because = _because(left_out)
        raise DataError(
            f"{folder} has no class folders with images ({endings}): expected {folder}/<class>/<image>{because}"
        )
    return Found({"all": classes}, list(left_out.told()))


def images_below(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the images in a folder and in the folders below it, sorted by path, and what is left out.

    Raises:
        DataError: A folder cannot be read.
    """
    left_out, images, seen = _LeftOut(folder), [], set()
    waiting = [str(folder)]
    while waiting:
        each = waiting.pop()
        if (real := os.path.realpath(each)) in seen:
            continue
        seen.add(real)
        inner, files, nothing = _listed(each)
        waiting += inner
        for path in files:
            if decode.is_image(path):
                images.append(Path(path))
            else:
                left_out.add(left_out.files, path)
        for path in nothing:
            left_out.add(left_out.nothing, path)
    return sorted(images), list(left_out.told())


def divided(options: ImageFolderOptions) -> tuple[dict[str, Classes], list[str]]:
    """Return the classes of each split of a spec, and what in the folder is left out.

    Raises:
        DataError: As `find`, or the folder is divided already and the spec divides it again.
    """
    classes, left_out = find(options.path)
    if "all" in classes:
        return divide(classes["all"], options.split, options.split_seed), left_out
    if options.split == UNDIVIDED:  # of a folder that is tested: what it has in test/
        return classes, left_out
    for option in ("split", "split_seed"):
        if getattr(options, option) != ImageFolderOptions.model_fields[option].default:
            raise DataError(
                f"dataset.{option} has no effect: {options.path} is divided already, into the folders train, val and "
                f"test; remove {option} from the spec, or these folders"
            )
    return classes, left_out


def divide(classes: Classes, shares: Sequence[float], seed: int) -> dict[str, Classes]:
    """Divide the classes into splits by shares, in a random order of the names; the rounding goes to training."""
    order = sorted(classes, key=lambda each: hashlib.sha256(os.fsencode(f"{seed}/{each[0]}")).digest())
    val = round(shares[1] * len(order))
    test = min(round(shares[2] * len(order)), len(order) - val)  # two halves may both be rounded up
    train = len(order) - val - test
    parts = (order[:train], order[train : train + val], order[train + val :])
    return {split: sorted(part) for split, part in zip(SPLITS, parts, strict=True)}


def in_order(splits: dict[str, Classes]) -> Classes:
    """Return the classes of all splits, split after split."""
    return [each for split in SPLITS for each in splits.get(split, [])]


def cached_name(options: ImageFolderOptions, classes: Classes) -> str:
    """Return the name of the prepared images in the cache; everything that decides them is in it."""
    digest = hashlib.sha256(os.fsencode(decoding(options)))
    for name, files in classes:
        for path in files:
            facts = path.stat()
            digest.update(os.fsencode(f"{name}/{path.name}/{facts.st_size}/{facts.st_mtime_ns}\n"))
    return f"imagefolder-{digest.hexdigest()[:24]}"


def decoding(options: ImageFolderOptions) -> str:
    """Return all that decides the pixels of a file of the folder."""
    bits = f"/{options.bits}" if options.bits else ""
    binary = "/binary" if options._binary else ""
    return f"{DECODER}/{options.path}/{options.image_size}/{options.channels}{bits}{binary}"


def _classes(folder: Path, prefix: str, left_out: _LeftOut) -> Classes:
    """Return the class folders that hold images, and note what is left out in them and beside them."""
    found = []
    left_out.beside += [f"{prefix}{name}" for name in _images_in(folder)]
    for each in _listed(folder)[0]:
        inner, files, nothing = _listed(each)
        images = [Path(path) for path in files if decode.is_image(path)]
        if images:
            found.append((prefix + os.path.basename(each), images))
        else:
            left_out.add(left_out.classes, each)
        for kind, paths in (
            (left_out.folders, inner),
            (left_out.files, (path for path in files if not decode.is_image(path))),
            (left_out.nothing, nothing),
        ):
            for path in paths:
                left_out.add(kind, path)
    return found


def _images_in(folder: Path) -> list[str]:
    return [os.path.basename(path) for path in _listed(folder)[1] if decode.is_image(path)]


def _listed(folder: Path | str) -> tuple[list[str], list[str], list[str]]:
    """Return the folders, the files and the other things in a folder, sorted, without hidden ones such as .git."""
    folders: list[str] = []
    files: list[str] = []
    others: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name.lower() not in OF_SYSTEMS:
                    _kind(entry, folders, files, others).append(entry.path)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from None
    return sorted(folders), sorted(files), sorted(others)


def _kind(entry: os.DirEntry[str], folders: list[str], files: list[str], others: list[str]) -> list[str]:
    """Return the list that an entry belongs to."""
    try:
        return folders if entry.is_dir() else files if entry.is_file() else others
    except OSError:  # a circle of links
        return others
