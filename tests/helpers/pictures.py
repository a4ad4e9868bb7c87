"""Images that tests make."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def png(value=0, size=(84, 84), mode="RGB"):
    data = io.BytesIO()
    Image.new(mode, size, value if mode != "RGB" else (value, value // 2, 255 - value)).save(data, "PNG")
    return data.getvalue()


def deep_png(values, significant=None):
    """Return a PNG of 16 bits per channel, which Pillow cannot write in colour.

    Args:
        values: grey [H, W], or grey and alpha, RGB or RGBA [H, W, C].
        significant: the bits that its chunk sBIT names; None: it has no such chunk.
    """

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    values = np.asarray(values).astype(">u2")
    channels = values.shape[2] if values.ndim == 3 else 1
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    named = chunk(b"sBIT", bytes([significant] * channels)) if significant else b""
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in values))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + named + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
