"""The options of each dataset in a spec. No TensorFlow is imported, because `metarun validate` reads this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator
from pydantic_core import PydanticCustomError

MODULES = {"cifar-fs": "cifar100", "fc100": "cifar100"}  # dataset -> its module, where the names differ
UNDIVIDED = (0.0, 0.0, 1.0)  # shares of a folder whose classes are all for the test


class Options(BaseModel):
    """Define a section of a spec: unknown keys and wrong types are errors, and values never change.

    The answers below are defaults. Options of a dataset, a network or an algorithm, also those of another package,
    override the ones that differ, class attributes as `regression: ClassVar = True`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    has_trials: ClassVar[bool | None] = None  # of a dataset; False: it has episodes; None: known once it is built
    has_images: ClassVar[bool | None] = None  # of a dataset; False: conv4 cannot read it
    has_ink: ClassVar[bool] = False  # of a dataset; True: drawings, whose ink differs from the background
    regression: ClassVar[bool] = False  # of a dataset; False: classification, or trials
    # of a dataset: further splits for tests of trained runs -> the settings of the test that are fixed there
    further_tests: ClassVar[Mapping[str, Mapping[str, int]]] = {}
    located: ClassVar[frozenset[str]] = frozenset()  # of a dataset; options that say where data are: the data decide
    of_network: ClassVar[frozenset[str]] = frozenset()  # of a dataset; options without effect where it is only tested
    of_tests: ClassVar[frozenset[str]] = frozenset()  # of an algorithm; options of validation and test alone

    @property
    def is_grey(self) -> bool:
        """Return whether the images of a dataset have one channel, as far as its options tell; drawings have."""
        return self.has_ink

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        """Yield (dotted key, message) for each setting that contradicts another one or has no effect.

        `experiment` is the whole spec, an `Experiment` of `experiments/config/experiment.py`. Where other mistakes have
        been found, it lacks the invalid settings: an AttributeError then ends the checks of this section.
        """
        yield from ()

    def invalid_test(self, split: str) -> str | None:
        """Return why a test on `split`, of `further_tests`, says nothing of a model trained on these data, or None."""
        return None

    def unshareable(self, train: Any, workers: int) -> str | None:
        """Return why so many workers cannot share the training of this algorithm; None if they can.

        `train` is the section of the spec.
        """
        if train.meta_batch < workers:
            return f"{workers} workers cannot share out a meta_batch of {train.meta_batch}: start fewer, or raise it"
        return None

    def less_memory(self, train: Any, share: float) -> Iterator[str]:
        """Yield changes of settings with which a training step of this algorithm needs less memory.

        Those that keep the result come first. `train` is the section of the spec; `share` the memory that there is, as
        a fraction of the memory that the step needs.
        """
        if train.meta_batch > 1:
            yield "lower train.meta_batch"
        yield "lower train.way or train.query"

    def in_parts(self, train: Any, share: float) -> Options | None:
        """Return options with which a training step gives the same gradient in this share of its memory, part by part.

        None: the algorithm cannot, or the spec has decided. `train` is the section of the spec.
        """
        return None

    def resolved(self, folder: Path) -> Options:
        """Return the options with every relative path made absolute; it starts at `folder`, that of the spec."""
        return self

    def for_tests(self) -> Options:
        """Return the options of a dataset that stands in `test.dataset`: another dataset than that of the training."""
        return self

    def for_network(self, images: Any) -> Options:
        """Return the options with which a dataset is read as a trained network's images, a `Preprocessing`.

        What they do not change is converted afterwards.
        """
        return self

    def is_changed(self, option: str) -> bool:
        """Return whether the spec gives `option` a value other than its default; False for one that is not valid."""
        default = type(self).model_fields[option].default
        return option in self.model_fields_set and getattr(self, option, default) != default


class ImageOptions(Options):
    """Hold the options of every image dataset."""

    has_trials: ClassVar = False
    has_images: ClassVar = True
    in_memory: bool | Literal["auto"] = Field(
        default="auto",
        description="Hold the images as one tensor on the device (true), or read them from a "
        "memory-mapped file through tf.data (false); auto decides by size: in memory up to 4 GiB.",
    )


class PhotographOptions(ImageOptions):
    """Hold the options of datasets of photographs in the form in which they are published."""

    of_network: ClassVar = frozenset({"normalisation"})
    image_size: ClassVar = 84  # pixels of a side
    normalisation: Literal["unit", "standard", "imagenet"] = Field(
        default="unit",
        description="unit: x/255 (Finn et al. 2017); standard: minus the mean, over the standard "
        "deviation of each channel of the training classes; imagenet: with ImageNet's mean and "
        "standard deviation (Antoniou et al. 2019).",
    )


class GlyphsOptions(ImageOptions):
    """Draw letters of many scripts as the fonts inside matplotlib draw them: 28x28, ink 1, no download."""

    has_ink: ClassVar = True
    image_size: ClassVar = 28
    name: Literal["glyphs"] = "glyphs"


WITHOUT_TEST = ("without-latin",)
WITHOUT_VALIDATION = (
    "vinyals-1200-423",
    "random-1200-423",
    "background-small-1",
    "background-small-2",
    *WITHOUT_TEST,
)


class OmniglotOptions(ImageOptions):
    """Sample Omniglot (Lake, Salakhutdinov and Tenenbaum 2015): 1623 characters x 20 drawers, 28x28."""

    further_tests: ClassVar = {
        "within-alphabet": {},
        "lake-one-shot": {"way": 20, "shot": 1, "query": 1, "episodes": 20},
    }
    of_network: ClassVar = frozenset({"ink"})
    has_ink: ClassVar = True
    image_size: ClassVar = 28
    name: Literal["omniglot"] = "omniglot"
    split: Literal[
        "vinyals",
        "vinyals-1200-423",
        "background-evaluation",
        "background-small-1",
        "background-small-2",
        "random-1100-100-423",
        "random-1200-423",
        "without-latin",
    ] = Field(
        default="vinyals",
        description="Which characters are for training, validation and test: vinyals (1028/172/423, "
        "Snell et al. 2017), vinyals-1200-423 (trains on its validation characters too, as the final models of "
        "Snell et al.; no validation part), background-evaluation (964/659 by alphabet, the last five background "
        "alphabets for validation), background-small-1 and background-small-2 (136/659 and 156/659: trains on five "
        "background alphabets, the minimal sets of Lake et al. 2015; no validation part), random-1100-100-423 (Finn "
        "et al. 2017), random-1200-423 (Nichol et al. 2018, no validation part), without-latin (trains on the 1597 "
        "characters of all other alphabets, for tests on emnist, which has Latin letters, as in Chen et al. 2019; no "
        "validation and no test part).",
    )
    episodes: Literal["any", "within-alphabet"] | None = Field(
        default=None,
        description="Classes of a task: any of the split (the default), or all of one alphabet (within-alphabet). The "
        "alphabets that have enough characters are then equally likely; turned classes are an alphabet for each angle.",
    )
    rotations: Literal["none", "classes", "classes-train", "per-task"] = Field(
        default="classes",
        description="Turns by 0, 90, 180 and 270 degrees: none; classes (each turn is a separate "
        "class in every split, Snell et al. 2017); classes-train (in the training split only, Nichol et "
        "al. 2018); per-task (one turn drawn for each class of each task in every split, Finn et al. "
        "2017).",
    )
    ink: Literal[0, 1] = Field(
        default=1,
        description="Value of the ink's pixels; the background has the other value. 1: as in the codes of MAML and "
        "Prototypical Networks; 0: Reptile.",
    )

    @field_validator("episodes")
    @classmethod
    def _any_is_the_default(cls, episodes: str | None) -> str | None:
        """Return null for any, so that specs that say it and specs that do not have one digest."""
        return None if episodes == "any" else episodes

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        if self.split in WITHOUT_VALIDATION and experiment.validation:
            yield "validation", f"split {self.split} has no validation classes: write `validation: null`"
        if self.split in WITHOUT_TEST and experiment.test.dataset in (None, self):
            yield (
                "dataset.split",
                f"{self.split} has no test classes: test on another dataset, such as `test.dataset: {{name: emnist}}`",
            )

    def invalid_test(self, split: str) -> str | None:
        if split == "lake-one-shot" and not self.split.startswith("background-"):
            return (
                f"split {self.split} trains on characters of this test: train with dataset.split background-evaluation"
            )
        if self.split in WITHOUT_TEST:
            return f"split {self.split} has no test characters"
        return None


class MiniImagenetOptions(PhotographOptions):
    """Sample miniImageNet (Vinyals 2016; split of Ravi and Larochelle 2017): 64/16/20 classes x 600, 84x84x3."""

    name: Literal["miniimagenet"] = "miniimagenet"


class TieredImagenetOptions(PhotographOptions):
    """Sample tieredImageNet (Ren et al. 2018): 351/97/160 classes of 20/6/8 categories of ImageNet, 84x84x3."""

    name: Literal["tieredimagenet"] = "tieredimagenet"


class CifarFSOptions(PhotographOptions):
    """Sample CIFAR-FS (Bertinetto et al. 2019): CIFAR-100 in 64/16/20 classes x 600, 32x32x3."""

    image_size: ClassVar = 32
    name: Literal["cifar-fs"] = "cifar-fs"


class FC100Options(PhotographOptions):
    """Sample FC100 (Oreshkin et al. 2018): CIFAR-100 in 60/20/20 classes x 600, divided by superclass, 32x32x3."""

    image_size: ClassVar = 32
    name: Literal["fc100"] = "fc100"


class CubOptions(PhotographOptions):
    """Sample CUB-200-2011 (Wah et al. 2011): 200 species of birds, 41 to 60 photographs each, 84x84x3."""

    name: Literal["cub"] = "cub"
    split: Literal["100-50-50", "140-30-30"] = Field(
        default="100-50-50",
        description="Which species are for training, validation and test: 100-50-50 by number (Chen et al. 2019); "
        "140-30-30 by the list of Meta-Dataset (Triantafillou et al. 2020). Results in one must not be compared with "
        "results in the other.",
    )


class EmnistOptions(ImageOptions):
    """Sample EMNIST by class (Cohen et al. 2017): 62 digits and letters, 28x28, to test models trained on Omniglot."""

    of_network: ClassVar = frozenset({"ink"})
    has_ink: ClassVar = True
    name: Literal["emnist"] = "emnist"
    split: Literal["even-odd"] = Field(
        default="even-odd",
        description="Which classes are for validation and test: even-odd (by number, 31 each; Chen et al. 2019, "
        "Patacchiola et al. 2020). No class is for training.",
    )
    ink: Literal[0, 1] = Field(
        default=1, description="Value of the ink's pixels; the background has the other value. 1: as in omniglot."
    )

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        if experiment.kind.is_trained and experiment.test.dataset is not self:
            yield "dataset.name", "emnist has no training classes: train on omniglot, and test the run on emnist"


class ImageFolderOptions(ImageOptions):
    """Sample your own images: class/*.png (jpg, gif, tiff, webp, bmp, ppm, jp2, avif), or train|val|test/class/*."""

    located: ClassVar = frozenset({"path"})
    of_network: ClassVar = frozenset({"image_size", "channels"})
    name: Literal["imagefolder"] = "imagefolder"
    path: Path = Field(strict=False, description="The folder; relative to the spec's own folder.")
    image_size: int = Field(
        default=84, ge=8, le=1024, description="Height and width in pixels after resizing, by Lanczos."
    )
    channels: Literal[1, 3] = Field(default=3, description="1: grey; 3: RGB. Transparent parts become white.")
    bits: int | None = Field(
        default=None,
        ge=1,
        le=16,
        description="Significant bits of 16-bit images, 12 for many cameras: 2^bits - 1 becomes white; default: as the "
        "file says (PNG's sBIT, TIFF's BitsPerSample), otherwise 16.",
    )
    split: tuple[float, float, float] = Field(
        default=(0.64, 0.16, 0.2),
        strict=False,
        description="Shares of the classes for training, validation and test, where the folder has no "
        "train, val and test folders of its own; they add up to 1.",
    )
    split_seed: int = Field(default=0, ge=0, description="Seed of the division by split.")
    _binary: bool = PrivateAttr(default=False)  # of a network whose images are: its rule for files is used
    _tested: bool = PrivateAttr(default=False)  # the content is that of the files, whatever network reads them

    @property
    def is_grey(self) -> bool:
        return self.channels == 1

    @field_validator("path")
    @classmethod
    def _no_nul(cls, path: Path) -> Path:
        if "\0" in str(path):
            raise PydanticCustomError("path_with_nul", "expected a path without NUL characters")
        return path

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        if abs(sum(self.split) - 1) > 1e-6:
            yield "dataset.split", f"adds up to {sum(self.split):g}, not 1"
        if min(self.split) < 0:
            yield "dataset.split", "has a negative share"
        try:
            self.path.expanduser().resolve()
        except (RuntimeError, ValueError, OSError) as error:
            yield "dataset.path", f"is no path: {error}"

    def resolved(self, folder: Path) -> Options:
        return self.model_copy(update={"path": (folder / self.path.expanduser()).resolve()})

    def for_tests(self) -> Options:
        """Return the options with all classes as test classes, unless they say how the folder is divided."""
        return self if "split" in self.model_fields_set else self.model_copy(update={"split": UNDIVIDED})

    def for_network(self, images: Any) -> Options:
        """Return the options with the network's size and channels, so that each file is resized once."""
        fits = images.height == images.width and images.channels in (1, 3)
        options = self.model_copy(update={"image_size": images.height, "channels": images.channels} if fits else {})
        options._binary, options._tested = fits and images.binary, True
        return options


class SinusoidOptions(Options):
    """Sample regression tasks y = A sin(x - phase) + noise (Finn et al. 2017, section 5.1)."""

    has_trials: ClassVar = False
    has_images: ClassVar = False
    regression: ClassVar = True
    name: Literal["sinusoid"] = "sinusoid"
    amplitude: tuple[float, float] = Field(default=(0.1, 5.0), strict=False, description="Range of A, uniform.")
    phase: tuple[float, float] = Field(
        default=(0.0, 3.141592653589793), strict=False, description="Range of the phase in radians, uniform."
    )
    x: tuple[float, float] = Field(default=(-5.0, 5.0), strict=False, description="Range of x, uniform.")
    noise: float = Field(
        default=0.0,
        ge=0,
        description="Standard deviation of Gaussian noise on the support targets; the query targets are exact.",
    )

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        for option, (low, high) in (("amplitude", self.amplitude), ("phase", self.phase), ("x", self.x)):
            if low >= high:
                yield f"dataset.{option}", f"is [{low:g}, {high:g}]: the first number must be the smaller one"


class BanditsOptions(Options):
    """Sample Bernoulli multi-armed bandits (Duan et al. 2016, section 3.1): p of each arm uniform in [0, 1]."""

    has_trials: ClassVar = True
    name: Literal["bandits"] = "bandits"
    arms: int = Field(default=5, ge=2, le=10_000, description="Number k of arms.")
    pulls: int = Field(default=10, ge=1, le=100_000, description="Pulls n per trial; each is an episode of one step.")


class MDPsOptions(Options):
    """Sample random tabular Markov decision processes (Duan et al. 2016, section 3.2), started in state 0."""

    has_trials: ClassVar = True
    name: Literal["mdps"] = "mdps"
    states: int = Field(default=10, ge=1, le=1000, description="Number of states.")
    actions: int = Field(default=5, ge=2, le=1000, description="Number of actions.")
    horizon: int = Field(default=10, ge=1, le=10_000, description="Steps per episode.")
    episodes: int = Field(default=10, ge=1, le=10_000, description="Episodes n per trial.")
    dirichlet: float = Field(default=1.0, gt=0, description="Each P(. | s, a) ~ Dirichlet(this, ..., this).")
    reward_mean: float = Field(default=1.0, description="Mean of the normal that each mean reward R(s, a) comes from.")
    reward_std: float = Field(default=1.0, ge=0, description="Standard deviation of that normal.")
    reward_noise: float = Field(default=1.0, ge=0, description="Standard deviation of a reward around R(s, a).")


DatasetOptions = Annotated[
    GlyphsOptions
    | OmniglotOptions
    | MiniImagenetOptions
    | TieredImagenetOptions
    | CifarFSOptions
    | FC100Options
    | CubOptions
    | EmnistOptions
    | ImageFolderOptions
    | SinusoidOptions
    | BanditsOptions
    | MDPsOptions,
    Field(discriminator="name"),
]
