"""Safe decoding and resizing of image files from users."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ..errors import DataError, KnownError

FORMATS = {  # ending -> Pillow's format; none of them starts another program, as EPS and WMF do
    ".png": "PNG",
    ".apng": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".bmp": "BMP",
    ".dib": "BMP",
    ".gif": "GIF",
    ".pbm": "PPM",
    ".pgm": "PPM",
    ".ppm": "PPM",
    ".pnm": "PPM",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".jp2": "JPEG2000",
    ".j2k": "JPEG2000",
    ".avif": "AVIF",
}
MAXIMUM_PIXELS = 100_000_000  # a larger one is a decompression bomb, or needs shrinking first
WHITE = 65535  # the largest value of 16 bits
BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # tags of TIFF
TWO_BYTES = ("RGB;16", "RGBA;16")  # raw modes of Pillow, with the order of bytes at the end
SWAPPED = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}  # the other order
DEPTHS = ("8 bits", "16 bits", "low bits", "high bits")


class Decoded(NamedTuple):
    """Hold an image, and what its file says of its depth.

    `depth` is one of `DEPTHS`: at most 8 bits, or bits that were given; 16 bits; fewer bits that the file names, in the
    lowest bits of its values; fewer bits that it names, scaled to 16.
    """

    pixels: np.ndarray  # [height, width, channels] uint8
    depth: str
    largest: int  # value of a 16-bit image, 0 for 8 bits
    frames: bool  # whether there are more, which are not read


def decode(data: bytes, where: str, size: tuple[int, int], channels: int) -> np.ndarray:
    """Decode an image to uint8 `[height, width, channels]`, see `examine`."""
    return examine(data, where, size, channels).pixels


def examine(data: bytes, where: str, size: tuple[int, int] | None, channels: int, bits: int | None = None) -> Decoded:
    """Decode an image.

    Of several frames the first is read. The image is turned as its EXIF data say, put on white where it is transparent,
    and resized by Lanczos if its size differs. Values of 16 bits are scaled so that 2^bits - 1 becomes white.

    Args:
        data: The bytes of the file.
        where: The name of the file, for messages.
        size: (height, width) in pixels; None: the image's own.
        channels: 1 for grey, 3 for RGB.
        bits: The significant bits of 16-bit images; None: those that the file names (PNG's sBIT, TIFF's BitsPerSample)
            if no value is beyond them, otherwise 16.

    Raises:
        DataError: The bytes are not an image that can be read, or it is too large.
    """
    try:
        with _opened(data) as image:
            if image.width * image.height > MAXIMUM_PIXELS:
                raise DataError(f"{where} has {image.width}x{image.height} pixels: shrink it first")
            frames = image.format != "MPO" and getattr(image, "is_animated", False)  # MPO: previews of a photograph
            turned, depth, largest = _in_eight_bits(image, data, where, bits)
            if turned.has_transparency_data:  # `convert` would show what is under it, often black
                layers = turned.convert("RGBA")
                turned = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
            flat = turned.convert("RGB" if channels == 3 else "L")
            if size and flat.size != (size[1], size[0]):
                flat = flat.resize((size[1], size[0]), Image.Resampling.LANCZOS)
            return Decoded(np.asarray(flat).reshape(flat.height, flat.width, channels), depth, largest, frames)
    except KnownError:
        raise  # its own, or a request to stop
    except UnidentifiedImageError:
        raise DataError(f"{where} is not a readable image (its content is in none of the formats): remove it") from None
    except Exception as error:  # damaged EXIF data alone raise six kinds of error
        raise DataError(f"{where} is not a readable image ({error}): replace or remove it") from None


def _opened(data: bytes) -> ImageFile.ImageFile:
    """Open an image in one of the formats of FORMATS that this Pillow has, whatever the name of its file is."""
    formats = list(dict.fromkeys(FORMATS.values()))
    if missing := [each for each in formats if each not in Image.OPEN]:
        Image.init()
        formats = [each for each in formats if each not in missing or each in Image.OPEN]
    return Image.open(io.BytesIO(data), formats=formats)


def _in_eight_bits(
    image: ImageFile.ImageFile, data: bytes, where: str, bits: int | None
) -> tuple[Image.Image, str, int]:
    """Return the upright image in 8 bits per channel."""
    named, raw_modes = _significant_bits(image, data), {_raw_mode(tile) for tile in image.tile}  # pyright: ignore
    inverted = image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO  # pyright: ignore
    turned = ImageOps.exif_transpose(image)
    if turned.mode == "F":
        raise DataError(f"{where} has values that are no whole numbers: save it in 8 or 16 bits")
    if turned.mode.startswith("I"):  # grey, which `convert` would clip to white
        values = np.asarray(turned).astype(np.int32)
        if values.min() < 0 or values.max() > WHITE:
            raise DataError(f"{where} has values from {values.min()} to {values.max()}: save it in 8 or 16 bits")
    elif not any(";16" in mode for mode in raw_modes):
        return turned, DEPTHS[0], 0
    else:  # Pillow reads the upper bytes of colours
        upper = np.asarray(turned)
        top = int(upper[..., :3].max())
        readable = all(mode[:-1] in TWO_BYTES for mode in raw_modes)
        fits = bits is None and 256 * top < 1 << (14 if named == 16 else named)  # fewer bits than Pillow reads
        if bits is None and not fits or not readable and (bits or named) == 16:
            return turned, DEPTHS[0 if not top else 1 if named == 16 else 3], 256 * top + 255
        if not readable:
            raise DataError(f"{where} has 16 bits in a form that is read in 8 ({raw_modes.pop()}): save it in 8 bits")
        values, inverted = 256 * upper.astype(np.int32) + np.asarray(_lower_bytes(data)), False
    colours = values if values.ndim == 2 else values[..., :3]
    largest = int(colours.max())
    if bits is not None and largest >= 1 << bits:
        raise DataError(f"{where} has the value {largest}, which dataset.bits: {bits} does not hold")
    white = (1 << (bits or (named if largest < 1 << named else 16))) - 1
    depth = 0 if bits or not largest else 1 if named == 16 else 2 if white < WHITE else 3
    if values.ndim == 3 and white == WHITE:
        return turned, DEPTHS[depth], largest
    if inverted:
        values = white - values
    scaled = values / (white / 255)
    if values.ndim == 3 and values.shape[2] == 4 and values[..., 3].max() > white:
        scaled[..., 3] = values[..., 3] / (WHITE / 255)
    return Image.fromarray(np.round(scaled).astype(np.uint8)), DEPTHS[depth], largest


def _raw_mode(tile: Any) -> str:
    """Return how the values of a part of an image lie in its file, as Pillow names it, such as RGB;16B."""
    return str(tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args)


def _lower_bytes(data: bytes) -> Image.Image:
    """Return the lower bytes of an image of 16 bits per colour, by reading it in the other order of bytes."""
    with _opened(data) as image:
        tiles = []
        for tile in image.tile:  # pyright: ignore
            swapped = _raw_mode(tile)[:-1] + SWAPPED[_raw_mode(tile)[-1]]
            rest = tile.args[1:] if isinstance(tile.args, tuple) else None
            tiles.append(tile._replace(args=swapped if rest is None else (swapped, *rest)))
        image.tile = tiles  # pyright: ignore
        return ImageOps.exif_transpose(image)


def _significant_bits(image: ImageFile.ImageFile, data: bytes) -> int:
    """Return the bits that a 16-bit image names as significant: PNG's sBIT, TIFF's BitsPerSample; otherwise 16."""
    named = 16
    if image.format == "TIFF":
        named = max(image.tag_v2.get(BITS_PER_SAMPLE) or (16,))  # pyright: ignore
    elif image.format == "PNG":
        place = 8  # of the first chunk: length, name, content, checksum
        while place + 8 <= len(data) and data[place + 4 : place + 8] not in (b"IDAT", b"PLTE"):
            length = int.from_bytes(data[place : place + 4], "big")
            if data[place + 4 : place + 8] == b"sBIT" and length:
                content = data[place + 8 : place + 8 + length]
                named = max(content[:3] if length >= 3 else content[:1])
            place += length + 12
    return named if 0 < named < 16 else 16


def read(path: Path, size: tuple[int, int] | None, channels: int, bits: int | None = None) -> Decoded:
    """Read an image file and decode it, see `examine`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return examine(data, str(path), size, channels, bits)


def is_image(name: str) -> bool:
    """Return whether a name or path ends like an image's; hidden files, such as ._0.png of macOS, do not count."""
    base, ending = os.path.splitext(os.path.basename(name))
    return ending.lower() in FORMATS and not base.startswith(".")
