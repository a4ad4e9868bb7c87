"""tieredImageNet (Ren et al. 2018): 608 classes of ImageNet, 779,165 images of 84x84, divided by 34 categories.

351 / 97 / 160 classes are of 20 / 6 / 8 categories. Read are both forms that are about, in a folder or a tar:
{train,val,test}_images_png.pkl (a list of encoded images) and {train,val,test}_images.npz (key images), each beside
{train,val,test}_labels.pkl. The npz is read image by image; a pickle of encoded images needs its own size in memory.
Red and blue may be exchanged in copies that passed through OpenCV. In photographs red is the brighter one on average:
by this the import recognises such copies, and puts them right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .images import published
from .images.layout import Layout
from .options import TieredImagenetOptions

if TYPE_CHECKING:
    from .images.source import ImageSource

CLASSES = {"train": 351, "val": 97, "test": 160}
TOTALS = {"train": 448_695, "val": 124_261, "test": 206_209}  # Ren et al. 2018, Table 3


def layout(name: str = "tieredimagenet") -> Layout:
    """Return what is known of tieredImageNet."""
    return Layout(
        name=name,
        title="tieredImageNet in the split of Ren et al.",
        shape=(84, 84, 3),
        classes=CLASSES,
        totals=TOTALS,
        fewest=732,  # of all of ImageNet
        expected="{}_images_png.pkl or {}_images.npz beside {}_labels.pkl, in a folder or in tiered-imagenet.tar, or "
        "{}/<class>/*.jpg",
        archives={"tiered-imagenet.tar": "e07e811b9f29362d159a9edd0d838c62", "tiered-imagenet.tar.gz": ""},
        reddest=True,
    )


def build(options: TieredImagenetOptions, dtype: str = "float32") -> ImageSource:
    """Build the source of a spec.

    Raises:
        DataError: The data have not been imported.
    """
    return published.source(layout(), None, dtype, options.normalisation, options.in_memory)
