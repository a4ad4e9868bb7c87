"""The drawings of Omniglot as they are published: 1-bit PNGs of 105x105 pixels with ink 0, in zips or folders."""

from __future__ import annotations

import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DataError

MAXIMUM_FILE = 1 << 20  # bytes of one file; the real ones have a few hundred
DRAWN, SIZE = 105, 28  # pixels: as they are published, and as networks read them


def members(path: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
    """Yield names and bytes of the files that match in a zip or under a folder; nothing is ever extracted by name.

    Raises:
        DataError: There is no such file, or the archive is damaged.
    """
    if path.is_dir():
        for archive in sorted(path.glob("*.zip")):
            yield from members(archive, pattern)
        for each in sorted(path.rglob("*")):
            if pattern.search(each.as_posix()) and each.is_file() and each.stat().st_size <= MAXIMUM_FILE:
                yield each.as_posix(), each.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if pattern.search(member.filename) and member.file_size <= MAXIMUM_FILE:
                    yield member.filename, archive.read(member)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path} is not a readable zip archive or folder ({error}): fetch it again") from None


def decode(data: bytes, where: str) -> np.ndarray:
    """Return a drawing as a bitmap, bool [105, 105], ink True (the files have ink 0).

    Raises:
        DataError: It is no PNG, or has another size.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != (DRAWN, DRAWN):
                raise DataError(f"{where} is {image.size[0]}x{image.size[1]}, not 105x105: not an Omniglot image")
            return ~np.asarray(image.convert("1"), bool)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{where} is not a readable PNG ({error}): fetch the archive again") from None


def shrink(bitmap: np.ndarray) -> np.ndarray:
    """Return a bitmap as 28x28 uint8, ink 255.

    Every resize of 1-bit images in Pillow is nearest-neighbour, whatever filter is named.
    """
    image = Image.fromarray(np.where(bitmap, 0, 255).astype(np.uint8)).convert("1", dither=Image.Dither.NONE)
    return np.where(np.asarray(image.resize((SIZE, SIZE))), 0, 255).astype(np.uint8)
