"""Read images with their classes and splits from the forms in which datasets lie around, one by one.

In a folder, a zip or a tar, or a file of it alone, each split is one of these, the first that is there:
- train.csv (filename,label) beside a folder images/;
- class folders in a folder train, or class folders without a split, whose names then decide;
- an archive with "train" in its name;
- arrays: a pickle or npz with "train" in its name, its labels in it or in a pickle train_labels beside it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from ..errors import DataError, listed
from . import arrays, boxes, decode
from .layout import Item, Layout, Reader

SPLITS = ("train", "val", "test")
SPLIT_WORDS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
MAXIMUM_FILE = 64 << 20  # bytes of one image
Readers = dict[str | None, Reader]  # by split; None: the classes decide


def split_of(name: str) -> str | None:
    """Return the split that the name of a file says, such as cache-val.pkl; None if it says none, or two.

    `category_split_train_phase_val.pickle` is none: it has other images of the training classes.
    """
    found = {SPLIT_WORDS[word] for word in re.split(r"[^a-z0-9]+", name.lower()) if word in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


def items(paths: Sequence[Path], layout: Layout) -> Iterator[Item]:
    """Yield the images of a dataset; each split is read from the first of `paths` that has it.

    Raises:
        DataError: A file cannot be read, or numbers of classes and images are wrong before anything is decoded.
    """
    done: set[str | None] = set()
    for path in paths:
        yield from _items(path, layout, done, hint=None)


def _items(path: Path, layout: Layout, done: set[str | None], hint: str | None) -> Iterator[Item]:
    if path.is_dir():
        hint = SPLIT_WORDS.get(path.name, hint)
    elif boxes.is_archive(path.name):
        hint = split_of(path.name) or hint
    warn_of_another(path, layout.archives.get(path.name))
    with boxes.opened(path) as box:
        only = "" if path == box.path else path.name
        for split, read in (layout.readers(box) or _readers(box, layout, hint, only)).items():
            if split not in done and None not in done:
                done.add(split)
                yield from read()


def warn_of_another(path: Path, md5: str | None) -> None:
    """Print that a file is not the original of its name, whose md5 is known: its pixels may differ."""
    if md5 and path.is_file() and os.access(path, os.R_OK):
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != md5:
            print(
                f"warning: {path} is not the original (its md5 is {found}, not {md5}): numbers of images and names of "
                "classes are checked, pixels are not",
                file=sys.stderr,
            )


def _readers(box: boxes.Box, layout: Layout, hint: str | None, only: str) -> Readers:
    """Return what reads each split of a box; of a file, `only`, what reads that file."""
    found: Readers = {}
    folders = {} if only else _class_folders(box, layout, hint)
    names = [name for name in box.names if only in ("", name)]
    for name in (each for each in names if each.lower().endswith(".csv")):
        split = SPLIT_WORDS.get(PurePosixPath(name).stem.lower())
        if split and split not in found and (split not in folders or _images_beside(box, name)):
            found[split] = partial(_of_table, box, name)
    for split, images in folders.items():
        found.setdefault(split, partial(_of_class_folders, box, layout, split, images))
    own_first = sorted(names, key=lambda name: _letters(layout.name) not in _letters(PurePosixPath(name).name))
    if box.is_folder and not only:
        for name in filter(boxes.is_archive, own_first):
            split = split_of(PurePosixPath(name).name)
            if split and split not in found:
                found[split] = partial(_items, box.path / name, layout, set[str | None](SPLITS) - {split}, split)
    for name in own_first:
        base = PurePosixPath(name).name.lower()
        split = split_of(base) or hint
        if base.endswith((*arrays.PICKLES, ".npz")) and "label" not in base and split and split not in found:
            found[split] = partial(arrays.items, box, name, layout, split)
    if len(found) > 1:
        found.pop(None, None)
    if not found and box.is_folder and not only:
        for name in names:
            if PurePosixPath(name).name in layout.archives:
                return {None: partial(_items, box.path / name, layout, set(), None)}
    return found


def _letters(name: str) -> str:
    """Return the letters and digits of a name: FC100_train.pickle lies beside CIFAR_FS_train.pickle in many folders."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _class_folders(box: boxes.Box, layout: Layout, hint: str | None) -> Mapping[str | None, list[str]]:
    """Return the names of images in class folders, by split."""
    found: defaultdict[str | None, list[str]] = defaultdict(list)
    for name in filter(decode.is_image, box.names):
        *above, folder, _ = ("", "", *PurePosixPath(name).parts)
        if not folder or layout.folder and layout.folder not in (above[-1], box.path.name):
            continue
        found[None if layout.is_whole else SPLIT_WORDS.get(above[-1], hint)].append(name)
    return found


def _of_class_folders(box: boxes.Box, layout: Layout, split: str | None, names: Sequence[str]) -> Iterator[Item]:
    counts = Counter(PurePosixPath(name).parent.name for name in names)
    if wrong := list(_wrong_counts(layout, split, counts)):  # before hours of decoding, for example of all of ImageNet
        raise DataError(listed(f"{box.path} cannot be imported", [f"{box.path}: {each}" for each in wrong]))
    for name in names:
        yield Item(split, PurePosixPath(name).parent.name, name, box.where(name), _bytes(box, name))


def _wrong_counts(layout: Layout, split: str | None, counts: Mapping[str, int]) -> Iterator[str]:
    """Yield what is wrong with class folders, by the number of images of each class."""
    by_part: dict[str, dict[str, int]] = {part: {} for part in ([split] if split else layout.classes)}
    foreign = []
    for name, count in counts.items():
        if part := split or layout.part_of(name):
            by_part[part][name] = count
        else:
            foreign.append(name)
    if foreign:
        yield layout.foreign(foreign)
        return
    for part, members in by_part.items():
        if wrong := layout.problem(part, members):
            yield wrong


def _bytes(box: boxes.Box, name: str) -> bytes:
    with box.open(name) as file:
        data = file.read(MAXIMUM_FILE + 1)
    if len(data) > MAXIMUM_FILE:
        raise DataError(f"{box.where(name)} has over {MAXIMUM_FILE >> 20} MiB: no image of this dataset")
    return data


def _images_beside(box: boxes.Box, table: str) -> dict[str, str]:
    """Return the files in the folder images/ beside a table, by their base names."""
    folder = PurePosixPath(table).parent / "images"
    return {PurePosixPath(name).name: name for name in box.names if PurePosixPath(name).parent == folder}


def _of_table(box: boxes.Box, table: str) -> Iterator[Item]:
    """Yield the images that a table names, of those in the folder images/ beside it: none from elsewhere."""
    there, missing = _images_beside(box, table), []
    try:
        with box.open(table) as file:
            rows = list(csv.DictReader(io.StringIO(file.read().decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{box.where(table)} is not a table with the columns filename and label ({error})") from None
    for row in rows:
        name = PurePosixPath(row.get("filename") or "").name
        if name not in there:
            missing.append(f"{box.where(table)} names {name!r}, which is not in the folder images beside it")
    if missing:
        raise DataError(listed(f"{len(missing)} images are missing", missing))
    label_of = {there[PurePosixPath(row["filename"]).name]: row.get("label") or "" for row in rows}
    split = SPLIT_WORDS[PurePosixPath(table).stem.lower()]
    for name in there.values():  # in the archive's own order
        if name in label_of:
            yield Item(split, label_of[name], name, box.where(name), _bytes(box, name))
