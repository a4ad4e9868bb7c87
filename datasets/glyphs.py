"""The embedded dataset: letters of many scripts as the DejaVu fonts inside matplotlib draw them. No download.

There is one class per character, with 20 samples of 28x28, ink 255. Twelve of them are the faces (Sans, Sans Mono and
Serif, each upright, bold, oblique or italic, and both). Eight of the faces follow again, each with a small affine
jitter. The jitter is drawn from a hash of the characters and applied in whole numbers, so the bits are the same on
every machine with the same Pillow.

Characters that look the same (Latin A, Greek Alpha, Cyrillic A) are found by their drawings and become one class. The
split is by script, so that the alphabets of the test are new. Training has Latin, Greek, digits and modifier letters
(two of which are small copies of a Cyrillic and of a Georgian one). Validation has Cyrillic, and the test has Armenian
and Georgian. A merged class belongs to the earliest of these.
"""

from __future__ import annotations

import hashlib
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from .images import cache
from .images.leftovers import glyphs_name
from .options import GlyphsOptions

if TYPE_CHECKING:
    from .images.source import ImageSource
    from .tasks import Split

SAMPLES, SIZE, OVERSAMPLING, FONT_SIZE = 20, 28, 4, 84
CANVAS, MARGIN = SIZE * OVERSAMPLING, 4
SAME = 0.02  # squared difference of two drawings over their squared ink, mean over faces: below it one class
SCRIPTS: dict[str, Split] = {"CYRILLIC": "val", "ARMENIAN": "test", "GEORGIAN": "test"}  # all others: train
SPLITS: tuple[Split, ...] = ("train", "val", "test")
ONE = 1 << 16  # 1.0 in the fixed-point numbers of the jitter


def build(options: GlyphsOptions, dtype: str = "float32") -> ImageSource:
    """Build the source of a spec; the first call draws the letters and stores them in the cache."""
    from .images.source import ClassPool, ImageSource

    prepared = drawn()
    splits = np.asarray(prepared.facts["splits"])
    pools: dict[Split, ClassPool] = {}
    for split in SPLITS:
        chosen = np.flatnonzero(splits == split)
        rows = (chosen[:, None] * SAMPLES + np.arange(SAMPLES)).ravel()
        names = tuple(prepared.names[number] for number in chosen)
        pools[split] = ClassPool(prepared.images[rows], prepared.counts[chosen], names)
    digest = prepared.digest
    return ImageSource("glyphs", pools, in_memory=options.in_memory, content_digest=digest, dtype=dtype, ink="light")


def drawn() -> cache.Stored:
    """Return the letters from the cache; the first call draws them."""
    return cache.load(glyphs_name(), draw_all)


def draw_all() -> cache.Prepared:
    """Draw every class, which takes some seconds."""
    faces = font_files()
    characters = shared_characters(faces)
    drawings = np.empty((len(characters), len(faces), CANVAS, CANVAS), np.uint8)
    with tqdm(total=len(characters), desc="glyphs", unit="letter", delay=2, disable=not sys.stderr.isatty()) as bar:
        for face, path in enumerate(faces):
            font = ImageFont.truetype(str(path), FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)
            for number, character in enumerate(characters):
                drawings[number, face] = draw(character, font)
                bar.update(1 / len(faces))
    classes = merge_alike(drawings)
    images = [sample(drawings[members[0]], [characters[i] for i in members]) for members in classes]
    splits = [_split([characters[i] for i in members]) for members in classes]
    names = tuple(" = ".join(unicodedata.name(characters[i]) for i in members) for members in classes)
    return cache.Prepared(np.concatenate(images)[..., None], np.full(len(classes), SAMPLES), names, {"splits": splits})


def font_files() -> list[Path]:
    """Return the paths of the 12 faces inside matplotlib, sorted by name."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return sorted(path for path in folder.glob("DejaVu*.ttf") if "Display" not in path.name)


def shared_characters(faces: Sequence[Path]) -> list[str]:
    """Return the letters and decimal digits that every face has, in code order."""
    from matplotlib.ft2font import FT2Font

    codes = set.intersection(*(set(FT2Font(str(path)).get_charmap()) for path in faces))
    characters = [chr(code) for code in sorted(codes)]
    return [each for each in characters if unicodedata.category(each)[0] == "L" or unicodedata.category(each) == "Nd"]


def draw(character: str, font: ImageFont.FreeTypeFont) -> np.ndarray:
    """Draw the character centred on the canvas, uint8 [112, 112]; one that is too large is drawn smaller."""
    left, top, right, bottom = font.getbbox(character)
    extent, room = max(right - left, bottom - top), CANVAS - 2 * MARGIN
    if extent > room:
        return draw(character, font.font_variant(size=font.size * room // int(extent)))
    image = Image.new("L", (CANVAS, CANVAS))
    place = ((CANVAS - int(right - left)) // 2 - int(left), (CANVAS - int(bottom - top)) // 2 - int(top))
    ImageDraw.Draw(image).text(place, character, fill=255, font=font)
    return np.asarray(image)


def merge_alike(drawings: np.ndarray) -> list[list[int]]:
    """Return groups of characters whose drawings `[n, faces, H, W]` agree.

    Each group is sorted, and the groups are ordered by their first character.
    """
    count, faces = drawings.shape[:2]
    difference = np.zeros((count, count))
    for face in range(faces):
        small = _shrink(drawings[:, face]).reshape(count, -1).astype(np.float32) / 255
        ink = (small**2).sum(axis=1)
        squared = ink[:, None] + ink[None] - 2 * small @ small.T
        difference += squared / np.maximum(ink[:, None] + ink[None], 1e-6) / faces
    leader = np.arange(count)
    for first, second in np.argwhere(np.triu(difference < SAME, k=1)):
        leader[leader == leader[second]] = leader[first]
    groups: dict[int, list[int]] = {}
    for number, each in enumerate(leader):
        groups.setdefault(int(each), []).append(number)
    return sorted(groups.values())


def sample(drawings: np.ndarray, characters: Sequence[str]) -> np.ndarray:
    """Return 20 images `[20, 28, 28]` of one class from its drawings `[faces, 112, 112]`."""
    images = [
        jitter(drawings[number % len(drawings)], hashlib.sha256(f"{characters[0]}/{number}".encode()).digest())
        for number in range(SAMPLES)
    ]
    return _shrink(np.stack(images))


def jitter(drawing: np.ndarray, chance: bytes) -> np.ndarray:
    """Scale a drawing by 0.92 to 1.08, shear it by up to 0.12 along each axis, and shift it.

    The shift is up to one pixel of the small image. Pixels are the nearest neighbours in fixed-point arithmetic.

    Args:
        drawing: uint8 `[112, 112]`.
        chance: Random bytes, read as six 16-bit numbers.
    """
    draws = [int.from_bytes(chance[2 * i : 2 * i + 2], "big") - 32768 for i in range(6)]  # -32768 .. 32767
    spread = (0.08, 0.12, 0.12, 0.08)
    xx, xy, yx, yy = (
        unit + draw * round(ONE * part) // 32768
        for unit, draw, part in zip((ONE, 0, 0, ONE), draws, spread, strict=False)
    )
    shift_x, shift_y = (OVERSAMPLING * draw * ONE // 32768 for draw in draws[4:])
    centre = CANVAS // 2
    y, x = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.int64) - centre
    source_x = ((xx * x + xy * y + shift_x) >> 16) + centre
    source_y = ((yx * x + yy * y + shift_y) >> 16) + centre
    inside = (source_x >= 0) & (source_x < CANVAS) & (source_y >= 0) & (source_y < CANVAS)
    picked = drawing[source_y.clip(0, CANVAS - 1), source_x.clip(0, CANVAS - 1)]
    return np.where(inside, picked, 0).astype(np.uint8)


def _shrink(drawings: np.ndarray) -> np.ndarray:
    """Return the mean of each 4x4 block, rounded down: `[n, 112, 112]` -> `[n, 28, 28]`."""
    blocks = drawings.reshape(len(drawings), SIZE, OVERSAMPLING, SIZE, OVERSAMPLING).astype(np.uint32)
    return (blocks.sum(axis=(2, 4)) // OVERSAMPLING**2).astype(np.uint8)


def _split(characters: Sequence[str]) -> Split:
    """Return the earliest split of the characters of a class."""
    scripts: list[Split] = [SCRIPTS.get(unicodedata.name(each).split()[0], "train") for each in characters]
    return min(scripts, key=SPLITS.index)
