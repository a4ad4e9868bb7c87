"""Images that tests make."""

import io

from PIL import Image


def png(value=0, size=(84, 84), mode="RGB"):
    data = io.BytesIO()
    Image.new(mode, size, value if mode != "RGB" else (value, value // 2, 255 - value)).save(data, "PNG")
    return data.getvalue()
