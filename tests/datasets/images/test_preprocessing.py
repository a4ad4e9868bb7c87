"""Images of other datasets, and files of users, become the images that a network reads."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from metarun.datasets import build, omniglot
from metarun.datasets.errors import DataError
from metarun.datasets.images import cache
from metarun.datasets.images.preprocessing import ConvertedImages, Preprocessing, conversion, converted
from metarun.datasets.images.source import ClassPool, ImageSource
from metarun.datasets.options import GlyphsOptions, OmniglotOptions
from metarun.datasets.tasks import Shape

GREY = Preprocessing(height=28, width=28, channels=1)
LIGHT = GREY.model_copy(update={"ink": "light"})
DARK = GREY.model_copy(update={"ink": "dark"})
BINARY = LIGHT.model_copy(update={"binary": True})
RGB = Preprocessing(height=84, width=84, channels=3)


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def png(pixels):
    data = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(data, "PNG")
    return data.getvalue()


def test_it_is_plain_data():
    given = Preprocessing(height=84, width=80, channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2), bits=12)
    assert Preprocessing.model_validate(given.model_dump(mode="json")) == given


class TestConversion:
    @pytest.mark.parametrize(
        ("given", "wanted", "convert", "invert"),
        [
            (LIGHT, LIGHT, None, False),
            (LIGHT, DARK, None, True),
            (DARK, BINARY, None, True),
            (RGB, GREY, None, False),
            (RGB, LIGHT, "as-is", False),
            (LIGHT, RGB, "invert", True),
            (LIGHT, DARK, "as-is", False),
            (LIGHT, LIGHT, "invert", True),
        ],
    )
    def test_light_and_dark_are_exchanged_where_polarities_differ_or_the_user_says_so(
        self, given, wanted, convert, invert
    ):
        assert conversion(given, wanted, convert).invert is invert

    @pytest.mark.parametrize(("given", "wanted"), [(RGB, LIGHT), (DARK, RGB), (GREY, BINARY)])
    def test_a_polarity_that_is_known_on_one_side_alone_is_refused(self, given, wanted):
        with pytest.raises(DataError, match=r"set test.convert \(--convert\) to invert"):
            conversion(given, wanted)

    def test_other_numbers_of_channels_are_refused_unless_nothing_changes(self):
        four = RGB.model_copy(update={"channels": 4})
        assert not conversion(four, four).changes_pixels
        with pytest.raises(DataError, match="cannot become those of the network"):
            conversion(four, RGB)

    def test_it_says_what_it_changes(self):
        assert conversion(RGB, BINARY, "invert").words == "84x84 to 28x28, RGB to grey, made binary, inverted"
        assert conversion(BINARY, LIGHT).words == ""
        assert not conversion(BINARY, LIGHT).changes_pixels and conversion(LIGHT, BINARY).changes_pixels


class TestPixels:
    def test_grey_is_the_luma_and_not_the_mean_of_the_channels(self):
        image = np.zeros((28, 28, 3), np.uint8)
        image[..., 1] = 200
        assert (converted(image, GREY) == round(200 * 0.587)).all()

    def test_rgb_is_grey_three_times(self):
        image = noise((84, 84, 1))
        assert (converted(image, RGB) == image).all()

    def test_sizes_change_by_lanczos_as_those_of_users_do(self):
        image = noise((105, 70, 3))
        assert (converted(image, RGB) == RGB.decode(png(image), "x.png").pixels).all()
        assert converted(image, RGB).std() < 0.8 * image.std()  # nearest neighbour would keep the noise

    def test_binary_images_are_resized_by_nearest_neighbour(self):
        image = np.where(noise((105, 105, 1)) > 127, 255, 0).astype(np.uint8)
        expected = np.asarray(Image.fromarray(image[..., 0]).resize((28, 28), Image.Resampling.NEAREST))
        assert (converted(image, BINARY)[..., 0] == expected).all()
        assert len(np.unique(converted(image, LIGHT))) > 2  # Lanczos, for a network of grey images

    def test_values_become_binary_at_half_before_they_are_inverted(self):
        image = np.full((28, 28, 1), 127, np.uint8)
        image[0, 0] = 128
        assert converted(image, BINARY).sum() == 255 and converted(image, BINARY)[0, 0] == 255
        assert (converted(image, BINARY, invert=True) == 255 - converted(image, BINARY)).all()

    def test_inputs_are_normalised_and_back(self):
        given = RGB.model_copy(update={"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)})
        image = noise((84, 84, 3))
        inputs = given.as_input(image, "float64").numpy()
        assert np.allclose(inputs, (image / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.3])
        assert np.allclose(given.pixels(inputs), image / 255)


class TestFiles:
    def test_a_file_of_the_network_s_own_images_comes_back(self):
        for given, image in ((RGB, noise((84, 84, 3))), (BINARY, np.where(noise((28, 28, 1)) > 9, 255, 0))):
            image = image.astype(np.uint8)
            assert (given.decode(png(image), "x.png").pixels == image).all()

    def test_a_scan_with_dark_ink_is_inverted_where_it_is_said(self):
        image = noise((28, 28, 1))
        assert (LIGHT.decode(png(image), "x.png", invert=True).pixels == 255 - image).all()

    def test_a_damaged_file_is_one_line(self):
        with pytest.raises(DataError, match=r"^x\.png is not a readable image"):
            BINARY.decode(b"nothing", "x.png")


class TestSources:
    def test_rows_are_converted_when_they_are_read(self):
        images = noise((12, 20, 30, 3))
        way = conversion(RGB.model_copy(update={"height": 20, "width": 30}), LIGHT, "invert")
        lazy = ConvertedImages(images, way)
        whole = np.asarray(lazy)
        assert whole.shape == lazy.shape == (12, 28, 28, 1) and lazy.nbytes == whole.nbytes
        rows = np.array([[3, 3], [11, 0]])
        assert (lazy[rows] == whole[rows]).all() and (whole[5] == converted(images[5], LIGHT, True)).all()

    @pytest.mark.parametrize("in_memory", [True, False])
    def test_tasks_are_those_of_the_tested_dataset_and_inputs_those_of_the_network(self, make_source, in_memory):
        given = make_source(size=16, in_memory=in_memory)
        pool = ClassPool(noise((8, 28, 28, 3)), np.full(2, 4), ("a", "b"))
        network = ImageSource("photographs", {"train": pool}, mean=(0.5,), std=(0.25,))
        source = given.as_images_of(network, "test")
        tasks, shape = (0, 3, Shape(4, 1, 2), 7), (28, 28, 3)
        own, other = given.sample("test", *tasks), source.sample("test", *tasks)
        assert (own.drawn.numpy() == other.drawn.numpy()).all() and source.in_memory is in_memory
        first = np.rint(255 * given.pixels(own.query_x)[0, 0]).astype(np.uint8)
        expected = converted(first, network.preprocessing) / 255
        assert other.query_x.shape[2:] == shape
        assert np.allclose(other.query_x[0, 0], (expected - 0.5) / 0.25, atol=1e-5)
        assert set(source.pools) == {"test"}


class TestRealData:
    @pytest.fixture
    def source(self, real_data, cache_folder):
        if not cache.read("omniglot"):
            omniglot.import_from([real_data / "omniglot"])
        return build(OmniglotOptions())

    def test_official_files_of_omniglot_become_the_images_that_networks_are_trained_on(self, source, real_data):
        """Reject resizing by Lanczos, and forgetting that the files have dark ink."""
        pool, name = source.pools["train"], "Balinese/character05"
        with zipfile.ZipFile(real_data / "omniglot" / "images_background.zip") as archive:
            members = sorted(each for each in archive.namelist() if f"{name}/0112_" in each and "/._" not in each)
            files = [source.preprocessing.decode(archive.read(each), each, invert=True).pixels for each in members]
        row = 20 * pool.names.index(name)
        assert (np.stack(files) == pool.images[row : row + 20]).all()

    def test_glyphs_for_a_network_of_omniglot_are_binary_with_light_ink(self, source):
        glyphs = build(GlyphsOptions())
        images = np.asarray(glyphs.as_images_of(source, "test").pools["test"].images)
        assert set(np.unique(images)) == {0, 255} and images.mean() < 128
        assert source.as_images_of(glyphs, "test").pools["test"].images is source.pools["test"].images
