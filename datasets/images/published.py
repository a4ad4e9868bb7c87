"""Published image datasets of which the user has a copy: import, checks, and the source of a spec.

What is particular to one of them is its `Layout`, in a module of its own (miniimagenet, cifar100, cub, emnist,
tieredimagenet). TensorFlow is only imported by `source`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import DataError, listed
from ..options import MODULES
from . import cache, divisions, forms
from .download import download
from .intake import Intake, moments
from .layout import WHOLE, Layout

if TYPE_CHECKING:
    from ..tasks import Split
    from .preprocessing import Ink
    from .source import ImageSource

SPLITS: tuple[Split, ...] = ("train", "val", "test")
CIFAR100 = "https://www.cs.toronto.edu/~kriz/", {"cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85"}
EMNIST = "https://biometrics.nist.gov/cs_links/EMNIST/", {"gzip.zip": "58c8d27c78d21e728a6bc7b3cc06412e"}
ADDRESSES = {"cifar-fs": CIFAR100, "fc100": CIFAR100, "emnist": EMNIST}  # dataset -> address, md5 of each archive
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def layout_of(name: str) -> Layout:
    """Return what is known of a dataset."""
    return import_module(f"..{MODULES.get(name, name)}", __package__).layout(name)


def members_of(options: Any) -> Mapping[Split, Sequence[str]] | None:
    """Return the names of the classes of each split; None for a dataset whose parts are its splits."""
    module = import_module(f"..{MODULES.get(options.name, options.name)}", __package__)
    return module.members(options) if hasattr(module, "members") else None


def fetch(name: str) -> None:
    """Download a dataset, check its archive and fill the cache.

    Raises:
        DataError: The archive cannot be downloaded, or is another one.
    """
    address, archives = ADDRESSES[name]
    import_from(layout_of(name), download(address, archives, name))


def import_from(layout: Layout, paths: Sequence[Path]) -> None:
    """Fill the cache from the user's copy. Older data stay until all of it is read.

    Raises:
        DataError: The copy does not hold all classes with all images, has classes or images in two splits, or cannot be
            read.
    """
    shown = ", ".join(map(str, paths))
    with cache.locked(layout.name):
        try:
            with Intake(layout) as intake:
                intake.take(forms.items(paths, layout))
                if wrong := intake.wrong(shown):
                    parts = "part" if layout.is_whole else "splits"
                    raise DataError(listed(f"{shown}: {len(wrong)} {parts} cannot be imported", wrong))
                for part in layout.classes:
                    cache.store(_new(layout, part), intake.prepared(part))
            if (prepared := read_all(layout, _new)) is None:
                raise DataError(f"{cache.folder()} cannot be read back after writing: check the disk")
            _refuse_others(layout, prepared, shown, "use another copy", _new)
            if unknown := divisions.unknown_names(prepared, layout):
                print(f"warning: {shown}: {unknown}", file=sys.stderr)
            for part in layout.classes:
                cache.rename(_new(layout, part), layout.cached(part))
        finally:
            for part in layout.classes:
                cache.remove(_new(layout, part))


def read_all(layout: Layout, name: Callable[[Layout, str], str] = Layout.cached) -> dict[str, cache.Stored] | None:
    """Return the parts of a dataset from the cache, or None if one is missing."""
    found = {part: stored for part in layout.classes if (stored := cache.read(name(layout, part)))}
    return found if len(found) == len(layout.classes) else None


def unknown_names(name: str) -> str | None:
    """Return that class names of a dataset in the cache cannot be compared with the known ones; None if all can."""
    layout = layout_of(name)
    return divisions.unknown_names(read_all(layout) or {}, layout)


def problems(name: str) -> list[str]:
    """Return why a dataset in the cache is not the published one; every image is read, if it has several parts."""
    layout = layout_of(name)
    prepared = read_all(layout)
    return _problems(layout, prepared) if prepared and not layout.is_whole else []


def stored(layout: Layout) -> dict[str, cache.Stored]:
    """Return the parts of a dataset from the cache, checked.

    Raises:
        DataError: The data have not been imported, or by an older version and are not the published ones.
    """
    prepared = read_all(layout)
    if prepared is None:
        way = f"`metarun data fetch {layout.name}`, or " if layout.name in cache.FETCHED else ""
        raise DataError(
            f"{layout.name} has not been imported: {way}`metarun data import {layout.name} PATH...` reads your copy "
            f"({layout.forms('train')})"
        )
    _refuse_others(layout, prepared, f"{layout.name} in {cache.folder()}", "import it again")
    return prepared


def source(
    layout: Layout,
    members: Mapping[Split, Sequence[str]] | None,
    dtype: str,
    normalisation: str = "unit",
    in_memory: bool | Literal["auto"] = "auto",
    ink: Ink | None = None,
) -> ImageSource:
    """Return the source of tasks.

    Args:
        layout: The dataset.
        members: The names of the classes of each split; None: the parts in the cache are the splits.
        dtype: The dtype of the inputs.
        normalisation: unit, standard or imagenet; inverted: 1 minus the pixel.
        in_memory: See `ImageSource`.
        ink: See `ImageSource`.

    Raises:
        DataError: See `stored`.
    """
    from .source import ClassPool, ImageSource

    prepared = stored(layout)
    if members is None:
        pools: dict[Split, ClassPool] = {
            split: ClassPool(prepared[split].images, prepared[split].counts, prepared[split].names) for split in SPLITS
        }
        digest = _digest(layout, prepared)
    else:
        whole = prepared[WHOLE]
        pools = {split: ClassPool(*_chosen(whole, names)) for split, names in members.items() if names}
        digest = whole.digest
    mean, std = (0.0,), (1.0,)
    if normalisation == "imagenet":
        mean, std = IMAGENET
    elif normalisation == "inverted":
        mean, std = (1.0,), (-1.0,)
    elif normalisation == "standard":
        facts = prepared["train"].facts if members is None else None
        mean, std = (facts["mean"], facts["std"]) if facts else map(tuple, moments(pools["train"].images))
    return ImageSource(
        layout.name, pools, mean=mean, std=std, in_memory=in_memory, content_digest=digest, dtype=dtype, ink=ink
    )


def _chosen(whole: cache.Stored, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Return images, counts and names of some classes of a part."""
    numbers = [whole.names.index(name) for name in names]
    first = np.concatenate([[0], np.cumsum(whole.counts)])
    images = np.concatenate([whole.images[first[number] : first[number + 1]] for number in numbers])
    return images, whole.counts[numbers], tuple(names)


def _digest(layout: Layout, prepared: Mapping[str, cache.Stored]) -> str:
    return hashlib.sha256(" ".join(prepared[part].digest for part in layout.classes).encode()).hexdigest()


def _refuse_others(
    layout: Layout,
    prepared: Mapping[str, cache.Stored],
    where: str,
    way_out: str,
    name: Callable[[Layout, str], str] = Layout.cached,
) -> None:
    """Raise DataError if the splits are not the published ones; what was checked once is noted in the cache.

    An older version imported whatever had the right numbers of images.
    """
    digest, first = _digest(layout, prepared), next(iter(layout.classes))
    if layout.is_whole or prepared[first].facts.get("checked") == digest:
        return
    if wrong := _problems(layout, prepared):
        raise DataError(f"{where} is not {layout.title} ({'; '.join(wrong)}): {way_out}")
    cache.note(name(layout, first), checked=digest)


def _problems(layout: Layout, prepared: Mapping[str, cache.Stored]) -> list[str]:
    return list((layout.problems or divisions.problems)(prepared, layout))


def _new(layout: Layout, part: str) -> str:
    return f"{layout.cached(part)}-new"
