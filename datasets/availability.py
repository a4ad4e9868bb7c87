"""The data that a dataset needs, and whether they are on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .errors import DataError, counted
from .images import cache, leftovers, published
from .images.folders import divided
from .options import ImageFolderOptions

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
    fetched = name in ("omniglot", "lake-one-shot") or name in published.ADDRESSES
    way = "`metarun data fetch` or `import`" if fetched else "`metarun data import`"
    return f"not here: {way} {name}"


def absent(dataset: Any) -> bool:
    """Return whether the data of a dataset are missing from the cache, or its folder does not exist."""
    if isinstance(dataset, ImageFolderOptions):
        return not dataset.path.is_dir()
    return not all(map(cache.read, cache.PARTS.get(dataset.name, ())))
