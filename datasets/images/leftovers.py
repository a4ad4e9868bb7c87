"""Copies in the cache that are listed by their folders, and those that nothing reads any more. No TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from ..errors import DataError
from ..options import ImageFolderOptions
from ..plugins import installed_version
from . import cache
from .folders import cached_name, divided, in_order

TEMPORARY = re.compile(rf"\.((?:imagefolder|glyphs|{'|'.join(cache.PARTS)})[^/]*)\.(?:npy|json)\.\d+")


class Copy(NamedTuple):
    """Hold a dataset in the cache, or a file that was left there."""

    name: str
    size: int  # bytes
    what: str
    reason: str  # why nothing reads it any more; "": something may
    path: Path | None = None  # of a file that is no dataset


def image_folders() -> Iterator[Copy]:
    """Yield the prepared copies of image folders. Whether they are stale is not looked at."""
    for name, record in cache.described("imagefolder-"):
        yield Copy(name, _size(name), _described(record), "")


def stale() -> Iterator[Copy]:
    """Yield all that nothing reads any more: copies of folders that have changed or are gone, and what was left."""
    for name, record in cache.described("imagefolder-"):
        if reason := _why_stale(name, record["facts"]):
            yield Copy(name, _size(name), _described(record), reason)
    for name, _ in cache.described("glyphs-"):
        if name != glyphs_name():
            yield Copy(name, _size(name), "glyphs", "drawn with another version of Pillow or matplotlib")
    for name, _ in cache.described():
        if name.endswith("-new") and name.removesuffix("-new") in _dataset_of():
            yield Copy(name, _size(name), name, "left by an import that was killed")
    for path in sorted(cache.folder().glob("imagefolder-*.npy")):
        if not cache.description_path(path.stem).exists():
            yield Copy(path.stem, _size(path.stem), "an image folder", "left by a process that was killed")
    for path in sorted(cache.folder().glob(".*")):
        if TEMPORARY.fullmatch(path.name):
            yield Copy(path.name, path.stat().st_size, path.name, "left by a process that was killed", path)


def discard(copy: Copy) -> bool:
    """Remove what `stale` has found, unless a process reads or prepares it; return whether it was removed."""
    try:
        with cache.locked(_lock_of(copy), wait=False):
            if copy.path:
                copy.path.unlink(missing_ok=True)
                return True
    except (DataError, OSError):
        return False
    return cache.discard(copy.name)


def glyphs_name() -> str:
    """Return the name of the drawn letters in the cache: another version of font or renderer draws again."""
    versions = f"matplotlib{installed_version('matplotlib')}-pillow{installed_version('pillow')}"
    return "glyphs-" + re.sub(r"[^\w.+-]+", "-", versions)


def _lock_of(copy: Copy) -> str:
    """Return the name whose lock a process holds that writes a file."""
    found = TEMPORARY.fullmatch(copy.name)
    name = found[1] if found else copy.name
    return _dataset_of().get(name.removesuffix("-new")) or name.removesuffix("-unfinished")


def _dataset_of() -> dict[str, str]:
    """Return the dataset of each prepared part, which is the name of its lock."""
    return {part: dataset for dataset, parts in cache.PARTS.items() for part in parts}


def _why_stale(name: str, facts: dict[str, Any]) -> str:
    """Return why the copy of an image folder is read no more; "" if it is that of the folder as it is."""
    path = Path(facts["folder"])
    if not path.is_dir():
        return "the folder is not on this machine"
    if "options" not in facts:
        return "made by an older version"
    if facts["unfinished"]:
        return "of a preparation that was not finished; the next one starts from it"
    try:
        options = ImageFolderOptions.model_validate(facts["options"])
        current = cached_name(options, in_order(divided(options)[0]))
    except (ValidationError, DataError, OSError) as error:
        return " ".join(str(error).split())
    return "" if name == current else "the folder has changed"


def _described(record: dict[str, Any]) -> str:
    facts = record["facts"]
    form = facts.get("options")
    pixels = f" of {form['image_size']}x{form['image_size']}x{form['channels']}" if form else ""
    unfinished = ", not finished" if facts.get("unfinished") else ""
    return f"{facts['folder']}: {len(record['counts'])} classes, {sum(record['counts'])} images{pixels}{unfinished}"


def _size(name: str) -> int:
    paths = cache.array_path(name), cache.description_path(name)
    return sum(path.stat().st_size for path in paths if path.exists())
