"""Safe decoding and resizing of image files from users."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import DataError

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}
MAXIMUM_PIXELS = 100_000_000  # a larger one is a decompression bomb, or needs shrinking first


def decode(data: bytes, where: str, size: tuple[int, int], channels: int) -> np.ndarray:
    """Decode an image to uint8 `[height, width, channels]`.

    The image is turned as its EXIF data say, put on white where it is transparent, and resized by Lanczos if its size
    differs.

    Args:
        data: The bytes of the file.
        where: The name of the file, for messages.
        size: (height, width) in pixels.
        channels: 1 for grey, 3 for RGB.

    Raises:
        DataError: The bytes are not an image that can be read, or it is too large.
    """
    try:
        with Image.open(io.BytesIO(data), formats=sorted(set(FORMATS.values()))) as image:
            if image.width * image.height > MAXIMUM_PIXELS:
                raise DataError(f"{where} has {image.width}x{image.height} pixels: shrink it first")
            turned = ImageOps.exif_transpose(image)
            if turned.mode.startswith("I"):  # 16-bit grey, which `convert` would clip to white
                turned = Image.fromarray(np.round(np.asarray(turned) / 257).astype(np.uint8))
            if turned.has_transparency_data:  # `convert` would show what is under it, often black
                layers = turned.convert("RGBA")
                turned = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
            flat = turned.convert("RGB" if channels == 3 else "L")
            if flat.size != (size[1], size[0]):
                flat = flat.resize((size[1], size[0]), Image.Resampling.LANCZOS)
            return np.asarray(flat).reshape(*size, channels)
    except DataError:
        raise
    except Exception as error:  # damaged EXIF data alone raise six kinds of error
        raise DataError(f"{where} is not a readable image ({error}): replace or remove it") from None


def read(path: Path, size: tuple[int, int], channels: int) -> np.ndarray:
    """Read an image file and decode it, see `decode`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return decode(data, str(path), size, channels)


def is_image(name: str) -> bool:
    """Return whether a file's name ends like an image's; hidden files, such as ._0.png of macOS, do not count."""
    return Path(name).suffix.lower() in FORMATS and not name.startswith(".")
