"""Draw a small folder of images: Cyrillic letters in fonts that no run on `glyphs` has seen, dark ink on white.

    python docs/examples/letters.py [FOLDER]

writes letters/known (five letters, with three to five images each) and letters/new (the same letters, and one that is
not known). The fonts are the STIX fonts inside matplotlib.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

FACES = ("STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta")
KNOWN = {"be": "Б", "de": "Д", "yu": "Ю", "zhe": "Ж", "ef": "Ф"}
IMAGES = {"be": 5, "de": 4, "yu": 4, "zhe": 4, "ef": 3}  # of each known letter
NEW, UNKNOWN = 4, ("ya", "Я")
SIDE = 64


def draw(letter: str, face: str, generator: random.Random) -> Image.Image:
    """Return a letter, a little turned, moved and scaled, as if it were scanned."""
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    font = ImageFont.truetype(str(fonts / f"{face}.ttf"), generator.randint(38, 46))
    image = Image.new("L", (SIDE, SIDE), 255)
    middle = (SIDE / 2 + generator.uniform(-3, 3), SIDE / 2 + generator.uniform(-3, 3))
    ImageDraw.Draw(image).text(middle, letter, fill=generator.randint(0, 60), font=font, anchor="mm")
    return image.rotate(generator.uniform(-8, 8), Image.Resampling.BICUBIC, fillcolor=255)


def main(folder: Path = Path("letters")) -> None:
    """Write the images below `folder`."""
    generator = random.Random(0)
    for name, letter in KNOWN.items():
        (folder / "known" / name).mkdir(parents=True, exist_ok=True)
        for number in range(IMAGES[name]):
            face = FACES[number % len(FACES)]
            draw(letter, face, generator).save(folder / "known" / name / f"{number}.png")
    (folder / "new").mkdir(parents=True, exist_ok=True)
    for name, letter in (*KNOWN.items(), UNKNOWN):
        for number in range(NEW):
            face = FACES[(number + 1) % len(FACES)]
            draw(letter, face, generator).save(folder / "new" / f"{name}-{number}.png")


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or ["letters"]))
