"""miniImageNet (Vinyals et al. 2016) in the split of Ravi and Larochelle (2017): 64 / 16 / 20 classes x 600, 84x84.

ImageNet's images may not be redistributed, so there is no download. `metarun data import miniimagenet PATH...` reads
the user's copy, in any of the usual forms (images/forms.py): class folders by split, or 100 of them without (the known
classes then decide); archives of either; Ravi's tables beside a folder images/; the pickles
mini-imagenet-cache-{train,val,test}.pkl, {train,val,test}.pickle and
miniImageNet_category_split_{train_phase_train,val,test}.pickle, alone or in an archive. Left out are train_phase_val
and train_phase_test beside the last: they have other images of the training classes.
The classes are compared with the known ones, and the images of all splits with each other (`problems`).
Eight pairs of its images are equal, six of them in a class of training and one of validation; in no copy is an image of
the test in another split.
Images of another size are resized to 84x84 by Lanczos (recipes differ in the filter, and results with it).
"""

from __future__ import annotations

import csv
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import first_of
from .images import divisions, duplicates, published
from .images.divisions import Parts
from .images.layout import Layout
from .options import MiniImagenetOptions

if TYPE_CHECKING:
    from .images.source import ImageSource

CLASSES = {"train": 64, "val": 16, "test": 20}
IMAGES = 600
IN_TWO_SPLITS = {("n03535780", "n03888605"): 5, ("n02950826", "n04389033"): 1}  # classes of equal images -> pairs
TWICE = 8  # images that may be more than once in a split; two are


def layout(name: str = "miniimagenet") -> Layout:
    """Return what is known of miniImageNet."""
    return Layout(
        name=name,
        title="miniImageNet in the split of Ravi and Larochelle",
        shape=(84, 84, 3),
        classes=CLASSES,
        images=IMAGES,
        expected="{}/<class>/*.jpg, {}.tar(.gz), {}.csv with images/, mini-imagenet-cache-{}.pkl or another pickle of "
        "arrays with {} in its name, or <class>/*.jpg of all 100 classes by their WordNet numbers",
        archives=dict.fromkeys(
            ("mini-imagenet.tar.gz", "mini-imagenet.tar", "mini-imagenet.zip", "miniImageNet.zip"), ""
        ),
        known=classes(),
        key=number_of,
        kind_of_names="WordNet numbers",
        problems=problems,
    )


def build(options: MiniImagenetOptions, dtype: str = "float32") -> ImageSource:
    """Build the source of a spec.

    Raises:
        DataError: The data have not been imported.
    """
    return published.source(layout(), None, dtype, options.normalisation, options.in_memory)


def import_from(paths: Sequence[Path]) -> None:
    """Fill the cache from the user's copy, see `published.import_from`."""
    published.import_from(layout(), paths)


@functools.cache
def classes() -> Mapping[str, str]:
    """Return the split of each class, by its WordNet number."""
    text = files(__package__ or "").joinpath("miniimagenet_ravi_split.csv").read_text(encoding="utf-8")
    return {row["class"]: row["split"] for row in csv.DictReader(text.splitlines())}


def number_of(name: str) -> str | None:
    """Return the WordNet number in the name of a class; None if it has none."""
    found = re.search(r"(?<![a-z0-9])n\d{8}(?!\d)", name.lower())
    return found[0] if found else None


def problems(parts: Parts, known: Layout) -> Iterator[str]:
    """Yield why three parts are not miniImageNet in this split, by the names of the classes and by all pixels.

    Args:
        parts: The three splits.
        known: What is known of miniImageNet.
    """
    yield from divisions.wrong_names(parts, known)
    apart, within, names, split_of = divisions.equal_images(parts)
    if not _are_those_known(apart, names, split_of):
        yield from duplicates.told(apart, names.__getitem__, split_of.__getitem__)
    if (copies := sum(each.files - each.images for each in within)) > TWICE:
        shown = first_of([names[each.classes[0]] for each in within], divisions.SHOWN)
        yield f"{copies} images are copies of another one in their split, by equal pixels: classes {shown}"


def _are_those_known(apart: list[duplicates.Equals], names: list[str], split_of: list[str]) -> bool:
    """Return whether the images in two splits are those of the original, as far as the names of the classes tell."""
    if any({split_of[number] for number in each.classes} != {"train", "val"} for each in apart):
        return False
    for each in apart:
        numbers = [number_of(names[number]) for number in each.classes]
        pair = tuple(sorted(number or "" for number in numbers))
        if each.images > (max(IN_TWO_SPLITS.values()) if "" in pair else IN_TWO_SPLITS.get(pair, 0)):  # pyright: ignore
            return False
    return sum(each.images for each in apart) <= sum(IN_TWO_SPLITS.values())
