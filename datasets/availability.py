"""The data that a dataset needs, and whether they are on this machine."""

from __future__ import annotations

from typing import Any

from .images import cache
from .options import ImageFolderOptions


def needs(dataset: Any) -> str:
    """Return the name of a dataset, whether its data are here, and how to get them if not."""
    name = dataset.name
    if isinstance(dataset, ImageFolderOptions) and absent(dataset):
        return f"{name}, not here: {dataset.path} is not a folder"
    if name not in cache.PARTS:
        return f"{name}, nothing to fetch"
    if not absent(dataset):
        return f"{name}, ready"
    way = "`metarun data fetch` or `import`" if name == "omniglot" else "`metarun data import`"
    return f"{name}, not here: {way} {name}"


def absent(dataset: Any) -> bool:
    """Return whether the data of a dataset are missing from the cache, or its folder does not exist."""
    if isinstance(dataset, ImageFolderOptions):
        return not dataset.path.is_dir()
    return not all(map(cache.read, cache.PARTS.get(dataset.name, ())))
