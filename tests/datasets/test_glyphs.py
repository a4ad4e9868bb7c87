"""The embedded letters: the same bits everywhere, alike ones merged, test alphabets unseen."""

import json
import unicodedata
from importlib.metadata import version

import numpy as np
import pytest

from metarun.datasets import glyphs
from metarun.datasets.images import cache
from metarun.datasets.options import GlyphsOptions

DIGEST = "01fb6178a08f340b90983c7112b46e5310b3b32c528ceb56e345342c894d8c4b"
DRAWN_ALIKE = {"12.3.0", "13.0.0"}  # versions of Pillow that draw these bits


@pytest.fixture
def source(cache_folder):
    return glyphs.build(GlyphsOptions())


def described():
    (path,) = [path for path in cache.folder().glob("glyphs-*.json")]
    return json.loads(path.read_text())


def test_the_bits_are_those_of_every_machine(source):
    if version("pillow") not in DRAWN_ALIKE:
        pytest.skip(f"drawn by another Pillow than {DRAWN_ALIKE}")
    assert described()["digest"] == DIGEST


def test_the_alphabets_of_the_test_are_never_seen(source):
    sizes = {split: len(pool.counts) for split, pool in source.pools.items()}
    assert sizes["train"] > 1000 and sizes["val"] > 100 and sizes["test"] > 100
    scripts = {split: {name.split()[0] for name in pool.names} for split, pool in source.pools.items()}
    assert scripts["test"] == {"ARMENIAN", "GEORGIAN"} and scripts["val"] == {"CYRILLIC"}
    assert {"LATIN", "GREEK", "DIGIT"} <= scripts["train"] and not scripts["train"] & scripts["test"]


def test_letters_that_look_the_same_are_one_class(source):
    names = [set(name.split(" = ")) for pool in source.pools.values() for name in pool.names]
    (capital_a,) = [each for each in names if "LATIN CAPITAL LETTER A" in each]
    assert {"GREEK CAPITAL LETTER ALPHA", "CYRILLIC CAPITAL LETTER A"} <= capital_a
    for different in ("LATIN CAPITAL LETTER A WITH RING ABOVE", "GREEK CAPITAL LETTER LAMDA", "LATIN SMALL LETTER A"):
        assert different not in capital_a
    assert sum(map(len, names)) == len(set().union(*names)), "no letter is in two classes"


def test_no_two_classes_are_drawn_alike(source):
    """Check that glyphs in the upright face that are kept apart look different."""
    faces = glyphs.font_files()
    upright = next(number for number, path in enumerate(faces) if path.name == "DejaVuSans.ttf")
    pixels = np.concatenate([pool.images[upright :: glyphs.SAMPLES, ..., 0] for pool in source.pools.values()])
    assert len({image.tobytes() for image in pixels}) == len(pixels)


def test_images_are_ink_on_nothing(source):
    for pool in source.pools.values():
        assert pool.images.shape[1:] == (28, 28, 1) and set(pool.counts) == {20}
        ink = pool.images.reshape(len(pool.images), -1).mean(axis=1) / 255
        assert ink.min() > 0 and 0.05 < ink.mean() < 0.35
        assert (pool.images[..., 0].max(axis=(1, 2)) > 100).all()


def test_samples_of_a_class_differ(source):
    pool = source.pools["test"]
    images = pool.images.reshape(-1, 20, 28 * 28)
    different = [len({image.tobytes() for image in each}) for each in images]
    assert min(different) >= 18, "faces that draw a letter alike still differ by their jitter"


def test_faces_and_characters():
    faces = glyphs.font_files()
    assert len(faces) == 12
    characters = glyphs.shared_characters(faces)
    assert len(characters) > 1500 and all(unicodedata.category(each)[0] in "LN" for each in characters)
