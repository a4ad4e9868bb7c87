"""The numbers of classes and images in each split, which bound the tasks that can be drawn from it. No TensorFlow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .images import cache
from .options import (
    CifarFSOptions,
    CubOptions,
    EmnistOptions,
    FC100Options,
    GlyphsOptions,
    ImageFolderOptions,
    MiniImagenetOptions,
    OmniglotOptions,
    TieredImagenetOptions,
)


class Sizes(NamedTuple):
    """Hold the size of a split."""

    classes: int | None  # to draw from, with turns that are classes; None: not known before the data are prepared
    images: int  # of the smallest class
    smallest: str  # its name; "" where all classes have so many
    total: int | None = None  # images, with turns that are classes; None: not known before the data are prepared
    group: str = ""  # in words, where tasks are of one group: the classes are those of the largest one
    grouped: int | None = None  # classes of all groups, where tasks are of one

    @property
    def of_all_groups(self) -> int | None:
        """Return the number of classes of all groups, which a classifier of all training classes has."""
        return self.grouped or self.classes

    @classmethod
    def of(cls, counts: Sequence[int] | np.ndarray, names: Sequence[str], turns: int = 1) -> Sizes:
        """Return the size of a split from the images of each class, and the names of the classes."""
        fewest = int(np.argmin(counts))
        every = min(counts) == max(counts)
        total = turns * int(np.sum(counts))
        return cls(turns * len(counts), int(counts[fewest]), "" if every else names[fewest], total)

    def within(self, groups: Sequence[str], kind: str) -> Sizes:
        """Return the size of the split if all classes of a task are of one of the groups, given for each class."""
        if not groups:
            return self
        name, size = Counter(groups).most_common(1)[0]
        return self._replace(classes=size, group=f"{name}, the largest {kind} of ", grouped=self.classes)


def sizes_of(options: Any) -> dict[str, Sizes]:
    """Return the size of each split of a dataset, by train, val and test; {} where only building it would tell.

    Nothing is prepared, and no image is read.

    Args:
        options: The section `dataset` of the spec.

    Raises:
        DataError: The user's folder is missing, or does not have the form that it needs.
    """
    known = KNOWN.get(type(options))
    return known(options) if known else {}


def counted_sizes_of(options: Any) -> dict[str, Sizes]:
    """Return what `sizes_of` returns, after the letters of glyphs were drawn, which takes some seconds once.

    So their number does not depend on what is in the cache. It depends on the versions of Pillow and matplotlib.

    Raises:
        DataError: See `sizes_of`; or the cache cannot be written.
    """
    if type(options) is GlyphsOptions:
        from .glyphs import drawn

        drawn()
    return sizes_of(options)


def sizes_in(source: Any) -> dict[str, Sizes]:
    """Return the size of each split of an `ImageSource`; {} for a source that is none."""
    return {
        split: Sizes.of(pool.counts, pool.names, 4 if source.rotations[split] == "classes" else 1).within(
            pool.groups, pool.kind
        )
        for split, pool in getattr(source, "pools", {}).items()
    }


def _glyphs(options: GlyphsOptions) -> dict[str, Sizes]:
    from .glyphs import SAMPLES, SPLITS
    from .images.leftovers import glyphs_name

    drawn = cache.read(glyphs_name())
    splits = drawn.facts["splits"] if drawn else ()
    count = {split: splits.count(split) if splits else None for split in SPLITS}
    return {split: Sizes(each, SAMPLES, "", each and each * SAMPLES) for split, each in count.items()}


def _omniglot(options: OmniglotOptions) -> dict[str, Sizes]:
    from .omniglot import DRAWERS, ROTATIONS, SPLITS, alphabet_of, characters, divide

    modes, (names, _) = dict(zip(SPLITS, ROTATIONS[options.rotations], strict=True)), characters()
    sizes = {}
    for split, members in divide(options.split).items():
        if members:
            alphabets = [alphabet_of(names[number]) for number in members] if options.episodes else []
            classes = (4 if modes[split] == "classes" else 1) * len(members)
            whole = Sizes(classes, DRAWERS, "", classes * DRAWERS)
            sizes[split] = whole.within(alphabets, "alphabet")
    return sizes


def _published(options: Any) -> dict[str, Sizes]:
    """Return the sizes of a dataset that is imported; before that, classes of unknown size have their lower bound."""
    from .images import published

    layout, members = published.layout_of(options.name), published.members_of(options)
    prepared = published.read_all(layout)
    if prepared and members:
        whole = prepared[published.WHOLE]
        count_of = dict(zip(whole.names, whole.counts.tolist(), strict=True))
        return {split: Sizes.of([count_of[name] for name in names], names) for split, names in members.items()}
    if prepared:
        return {split: Sizes.of(part.counts, part.names) for split, part in prepared.items()}
    classes = {split: len(names) for split, names in members.items()} if members else layout.classes
    each, totals = layout.images, layout.totals or {}
    return {
        split: Sizes(n, each or layout.fewest, "", n * each if each else totals.get(split))
        for split, n in classes.items()
    }


def _imagefolder(options: ImageFolderOptions) -> dict[str, Sizes]:
    from .images.folders import divided

    return {
        split: Sizes.of([len(files) for _, files in classes], [name for name, _ in classes])
        for split, classes in divided(options)[0].items()
        if classes
    }


KNOWN: dict[type, Callable[[Any], dict[str, Sizes]]] = {
    GlyphsOptions: _glyphs,
    OmniglotOptions: _omniglot,
    MiniImagenetOptions: _published,
    CifarFSOptions: _published,
    FC100Options: _published,
    TieredImagenetOptions: _published,
    CubOptions: _published,
    EmnistOptions: _published,
    ImageFolderOptions: _imagefolder,
}
