"""The data that a dataset needs: whether they are on this machine, and how they get there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import lake_one_shot, omniglot
from .errors import DataError, counted
from .images import cache, leftovers, published
from .images.folders import divided
from .options import ImageFolderOptions

OWN = {"omniglot": omniglot, "lake-one-shot": lake_one_shot}  # read their data themselves; of others see `published`
WITHOUT_FILES = {
    "glyphs": "drawn from matplotlib's fonts when first used",
    "imagefolder": "your own folder, prepared when first used",
    "sinusoid": "computed",
    "bandits": "computed",
    "mdps": "computed",
}


def overview() -> Iterator[tuple[str, str]]:
    """Yield the name of each built-in dataset, and whether it is on this machine or how it gets there."""
    for name, parts in cache.PARTS.items():
        found = [each for part in parts if (each := cache.read(part))]
        if len(found) == len(parts):
            classes, images = sum(len(each.counts) for each in found), sum(len(each.images) for each in found)
            unknown = published.unknown_names(name) if name in cache.BY_SPLIT else None
            beside = f"; {unknown}" if unknown else ""
            held = f"{counted(classes, 'class', 'classes')}, {counted(images, 'image')}"
            yield name, f"ready: {held} in {cache.folder()}{beside}"
        else:
            yield name, _missing(name)
    yield from WITHOUT_FILES.items()
    for copy in leftovers.image_folders():
        yield "imagefolder", f"{megabytes(copy.size)}, {copy.what}"


def megabytes(size: int) -> str:
    """Return a number of bytes in MB."""
    return f"{size / 1e6:.1f} MB"


def unusable(dataset: Any) -> str | None:
    """Return why the folder of an image folder cannot be read; None for one that can, and for other datasets."""
    if isinstance(dataset, ImageFolderOptions):
        try:
            divided(dataset)
        except DataError as error:
            return str(error)
    return None


def needs(dataset: Any) -> str:
    """Return the name of a dataset, whether its data are here, and how to get them if not."""
    name = dataset.name
    if isinstance(dataset, ImageFolderOptions) and absent(dataset):
        return f"{name}, not here: {dataset.path} is not a folder"
    if name not in cache.PARTS:
        return f"{name}, nothing to fetch"
    if not absent(dataset):
        return f"{name}, ready"
    return f"{name}, {_missing(name)}"


def _missing(name: str) -> str:
    way = "`metarun data fetch` or `import`" if name in cache.FETCHED else "`metarun data import`"
    return f"not here: {way} {name}"


def address_of(name: str) -> str:
    """Return the public address of one of `cache.FETCHED`."""
    return OWN[name].ADDRESS if name in OWN else published.ADDRESSES[name][0]


def fetch(name: str) -> None:
    """Download one of `cache.FETCHED`, check it and fill the cache.

    Raises:
        DataError: The data cannot be downloaded, or are others.
    """
    if name in OWN:
        OWN[name].fetch()
    else:
        published.fetch(name)


def import_from(name: str, paths: Sequence[Path]) -> None:
    """Fill the cache with a dataset from the user's copy.

    Raises:
        DataError: The copy is not complete, is another dataset or cannot be read.
    """
    if name in OWN:
        OWN[name].import_from(paths)
    else:
        published.import_from(published.layout_of(name), paths)


def absent(dataset: Any) -> bool:
    """Return whether the data of a dataset are missing from the cache, or its folder does not exist."""
    if isinstance(dataset, ImageFolderOptions):
        return not dataset.path.is_dir()
    return not all(map(cache.read, cache.PARTS.get(dataset.name, ())))
