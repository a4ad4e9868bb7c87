"""The depth of images: what their files say of significant bits, and what is made of them."""

import io

import numpy as np
import pytest
from pictures import deep_png, png
from PIL import Image

from metarun.datasets import imagefolder
from metarun.datasets.errors import DataError, KnownError
from metarun.datasets.images import decode
from metarun.datasets.options import ImageFolderOptions

SPLITS = ("train", "val", "test")


pytestmark = pytest.mark.usefixtures("own_cache")


class TestDepth:
    """Read a ramp of 256 grey levels, kept in 12 of 16 bits."""

    RAMP = np.arange(256).reshape(16, 16)
    LOW = np.round(RAMP * 4095 / 255).astype(int)

    def levels(self, data, bits=None):
        return decode.examine(data, "x", (16, 16), 1, bits).pixels[..., 0].astype(int)

    @pytest.mark.parametrize("form", ["grey", "RGB", "RGBA"])
    def test_fault_06_significant_bits_are_honoured(self, form):
        """Read twelve bits in sixteen. Rejected: the largest value 16 of 255, and 17 grey levels."""
        opaque = np.full((16, 16), 65535)
        channels = {"grey": [], "RGB": [self.LOW] * 3, "RGBA": [*[self.LOW] * 3, opaque]}[form]
        low = np.stack(channels, -1) if channels else self.LOW
        for significant, bits in ((12, None), (None, 12)):
            np.testing.assert_array_equal(self.levels(deep_png(low, significant), bits), self.RAMP)
        if form == "grey":
            assert len(np.unique(self.levels(deep_png(low)))) == 17

    def test_fault_06_bits_that_were_scaled_to_sixteen_stay(self):
        """Read what the standard of PNG has so. Rejected: values beyond 255, or all white."""
        for values in (self.LOW * 16, self.LOW * 16 + self.LOW // 256):
            assert abs(self.levels(deep_png(values, 12)) - self.RAMP).max() <= 1
        colours = np.stack([self.LOW * 16] * 3, -1)
        assert abs(self.levels(deep_png(colours, 12)) - self.RAMP).max() <= 1

    def test_fault_06_twelve_bits_of_tiff_and_negatives(self):
        negative = io.BytesIO()
        Image.fromarray((65535 - self.RAMP * 257).astype(np.uint16)).save(negative, "TIFF", tiffinfo={262: 0})
        np.testing.assert_array_equal(self.levels(negative.getvalue()), self.RAMP)

    def test_values_that_do_not_fit_are_refused(self):
        with pytest.raises(DataError, match="x has the value 4095, which dataset.bits: 10 does not hold"):
            self.levels(deep_png(self.LOW), 10)
        for values in (self.LOW.astype(np.float32), self.LOW.astype(np.int32) * 100):
            data = io.BytesIO()
            Image.fromarray(values).save(data, "TIFF")
            with pytest.raises(DataError, match="save it in 8 or 16 bits"):
                self.levels(data.getvalue())

    @pytest.mark.parametrize("bits", [10, 12, 14, 16])
    def test_fault_06_a_folder_of_dark_images_is_told_with_the_option(self, tmp_path, capsys, bits):
        root = tmp_path / "imgs"
        for each in range(3):
            (root / f"c{each}").mkdir(parents=True)
            for image in range(2):
                values = np.roll(self.RAMP, 7 * each + image) * ((1 << bits) - 1) // 255
                (root / f"c{each}" / f"{image}.png").write_bytes(deep_png(values))
        imagefolder.build(ImageFolderOptions(path=root, image_size=16))
        told = capsys.readouterr().err
        if bits == 16:
            assert told == ""
            return
        assert told == (
            f"warning: {root}: no value of its 6 16-bit images passes {(1 << bits) - 1}, so they are nearly "
            f"black: if they have {bits} significant bits, set dataset.bits: {bits}\n"
        )
        source = imagefolder.build(ImageFolderOptions(path=root, image_size=16, bits=bits))
        assert capsys.readouterr().err == ""
        assert max(pool.images.max() for pool in source.pools.values()) == 255

    def test_bits_without_deep_images_have_no_effect(self, tmp_path):
        for each in range(3):
            (tmp_path / f"c{each}").mkdir()
            (tmp_path / f"c{each}" / "0.png").write_bytes(png(each))
        with pytest.raises(DataError, match="dataset.bits has no effect"):
            imagefolder.build(ImageFolderOptions(path=tmp_path, image_size=16, bits=12))


def test_a_request_to_stop_passes_through_the_decoder(monkeypatch):
    """Reject a stop told as a damaged image."""

    class Stopped(KnownError):
        pass

    def stop(image):
        raise Stopped("stopped")

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", stop)
    with pytest.raises(Stopped):
        decode.decode(png(), "x", (8, 8), 3)
