"""The user's own images: class/*.png, or train|val|test/class/*.png.

Without train, val and test folders the classes are divided by `split`, in a random order that depends only on their
names and `split_seed`. The images are decoded once into the cache, split after split. The name of the cached file
depends on every image's path, size and time, so a changed folder is read again. The images are never in memory all at
once, unless the source holds them there.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from .errors import DataError
from .images import cache, decode
from .options import ImageFolderOptions

if TYPE_CHECKING:
    from .images.source import ClassPool, ImageSource
    from .tasks import Split

SPLITS: tuple[Split, ...] = ("train", "val", "test")
DECODER = 3  # changes where the same files give other pixels than before
AT_ONCE = 256  # images decoded ahead of the one that is written
Classes = list[tuple[str, list[Path]]]  # name and image files, sorted by name


def build(options: ImageFolderOptions, dtype: str = "float32") -> ImageSource:
    """Build the source of a spec.

    Raises:
        DataError: The folder has no classes, lacks a split, or is divided already and the spec divides it again.
    """
    splits = divided(options)
    _tell_shared(options.path, splits)
    everything = [each for split in SPLITS for each in splits.get(split, [])]
    stored = cache.load(f"imagefolder-{_digest(options, everything)}", lambda: _prepare(options, everything))
    from .images.source import ClassPool, ImageSource

    pools: dict[Split, ClassPool] = {}
    classes = rows = 0
    for split in SPLITS:
        if own := len(splits.get(split, [])):
            counts = stored.counts[classes : classes + own]
            images = stored.images[rows : rows + counts.sum()]  # of the memory map, not a copy
            pools[split] = ClassPool(images, counts, stored.names[classes : classes + own])
            classes, rows = classes + own, rows + len(images)
    division = repr([(split, pool.names, pool.counts.tolist()) for split, pool in pools.items()])
    return ImageSource(
        f"imagefolder {options.path}",
        pools,
        in_memory=options.in_memory,
        former_digest=stored.digest,
        content_digest=hashlib.sha256(os.fsencode(stored.digest + division)).hexdigest(),
        dtype=dtype,
    )


def divided(options: ImageFolderOptions) -> dict[Split, Classes]:
    """Return the classes of each split, in the folders train, val and test or as the spec divides them.

    Raises:
        DataError: As `build` does.
    """
    found: Any = find_classes(options.path)
    if "all" in found:
        return divide(found["all"], options.split, options.split_seed)
    _refuse_division(options)
    return found


def _refuse_division(options: ImageFolderOptions) -> None:
    for option in ("split", "split_seed"):
        if getattr(options, option) != ImageFolderOptions.model_fields[option].default:
            raise DataError(
                f"dataset.{option} has no effect: {options.path} is divided already, into the folders train, val and "
                f"test; remove {option} from the spec, or these folders"
            )


def _tell_shared(folder: Path, divided: Mapping[Split, Classes]) -> None:
    """Warn of class names in two splits: accuracy on classes of the training is not few-shot accuracy."""
    names = {split: {name.removeprefix(f"{split}/") for name, _ in classes} for split, classes in divided.items()}
    for one, other in itertools.combinations(names, 2):
        if both := sorted(names[one] & names[other]):
            more = f" and {len(both) - 3} more" if len(both) > 3 else ""
            print(
                f"warning: {folder}: {one}/ and {other}/ both have {', '.join(both[:3])}{more}; the splits of a "
                "few-shot dataset have different classes",
                file=sys.stderr,
            )


def find_classes(folder: Path) -> dict[str, Classes]:
    """Return the classes of a folder as {"all": classes}, or per split where it has these folders.

    Raises:
        DataError: There is no folder, no class with images, or no training or test class.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder: dataset.path must hold class folders with images")
    names = {each.name for each in _folders(folder)}
    if "train" in names and names <= set(SPLITS):
        found = {split: _classes(folder / split, f"{split}/") for split in SPLITS if split in names}
        missing = [split for split in ("train", "test") if not found.get(split)]
        if missing:
            raise DataError(f"{folder} has no classes with images in {' and '.join(missing)}/")
        return found
    classes = _classes(folder, "")
    if not classes and "train" in names:
        others = ", ".join(sorted(names - set(SPLITS)))
        raise DataError(f"{folder} has other folders beside train, val and test: move {others} elsewhere")
    if not classes:
        endings = ", ".join(decode.FORMATS)
        raise DataError(f"{folder} has no class folders with images ({endings}): expected {folder}/<class>/<image>")
    return {"all": classes}


def divide(classes: Classes, shares: Sequence[float], seed: int) -> dict[Split, Classes]:
    """Divide the classes into splits by shares, in a random order of the names; the rounding goes to training."""
    order = sorted(classes, key=lambda each: hashlib.sha256(os.fsencode(f"{seed}/{each[0]}")).digest())
    val = round(shares[1] * len(order))
    test = min(round(shares[2] * len(order)), len(order) - val)  # two halves may both be rounded up
    train = len(order) - val - test
    parts = (order[:train], order[train : train + val], order[train + val :])
    return {split: sorted(part) for split, part in zip(SPLITS, parts, strict=True)}


def _classes(folder: Path, prefix: str) -> Classes:
    found = []
    for each in _folders(folder):
        files = sorted(path for path in each.iterdir() if decode.is_image(path.name) and path.is_file())
        if files:
            found.append((prefix + each.name, files))
    return found


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, without .git and other hidden ones."""
    return sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))


def _digest(options: ImageFolderOptions, classes: Classes) -> str:
    """Return the digest of everything that decides the prepared array."""
    digest = hashlib.sha256(os.fsencode(f"{DECODER}/{options.path}/{options.image_size}/{options.channels}"))
    for name, files in classes:
        for path in files:
            facts = path.stat()
            digest.update(os.fsencode(f"{name}/{path.name}/{facts.st_size}/{facts.st_mtime_ns}\n"))
    return digest.hexdigest()[:24]


def _prepare(options: ImageFolderOptions, classes: Classes) -> cache.Prepared:
    size = (options.image_size, options.image_size)
    files = [path for _, paths in classes for path in paths]

    def decoded() -> Iterator[np.ndarray]:
        with (
            warnings.catch_warnings(),  # not in the threads: it is for the whole process
            ThreadPoolExecutor() as pool,
            tqdm(total=len(files), desc="images", unit="image", delay=2, disable=not sys.stderr.isatty()) as bar,
        ):
            warnings.simplefilter("ignore")
            for start in range(0, len(files), AT_ONCE):
                some = files[start : start + AT_ONCE]
                yield from pool.map(lambda path: decode.read(path, size, options.channels), some)
                bar.update(len(some))

    counts = np.asarray([len(paths) for _, paths in classes])
    return cache.Prepared(decoded(), counts, tuple(name for name, _ in classes), {"folder": str(options.path)})
