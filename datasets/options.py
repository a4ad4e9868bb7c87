"""What a user may say of each dataset in a spec. No TensorFlow here: `metarun validate` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError


class Options(BaseModel):
    """A section of a spec: unknown keys and wrong types are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ImageOptions(Options):
    """What every image dataset understands."""

    in_memory: bool | Literal["auto"] = Field(
        default="auto",
        description="Hold the images as one tensor on the device (true), or read them from a "
        "memory-mapped file through tf.data (false); auto decides by size: in memory up to 4 GiB.",
    )


class GlyphsOptions(ImageOptions):
    """The world's letters as the fonts inside matplotlib draw them: 28x28, ink 1, no download."""

    name: Literal["glyphs"] = "glyphs"


class OmniglotOptions(ImageOptions):
    """Omniglot (Lake, Salakhutdinov and Tenenbaum 2015): 1623 characters x 20 drawers, 28x28."""

    name: Literal["omniglot"] = "omniglot"
    split: Literal["vinyals", "vinyals-1200-423", "background-evaluation", "random-1100-100-423", "random-1200-423"] = (
        Field(
            default="vinyals",
            description="Which characters are for training, validation and test: vinyals (1028/172/423, "
            "Snell et al. 2017), vinyals-1200-423 (trains on its validation characters too, as the final models of "
            "Snell et al.; no validation part), background-evaluation (964/659 by alphabet, the last five background "
            "alphabets for validation), random-1100-100-423 (Finn et al. 2017), random-1200-423 (Nichol "
            "et al. 2018, no validation part).",
        )
    )
    rotations: Literal["none", "classes", "classes-train", "per-task"] = Field(
        default="classes",
        description="Turns by 0, 90, 180 and 270 degrees: none; classes (each turn is a class of its "
        "own in every split, Snell et al. 2017); classes-train (in the training split only, Nichol et "
        "al. 2018); per-task (one turn drawn for each class of each task in every split, Finn et al. "
        "2017).",
    )
    ink: Literal[0, 1] = Field(
        default=1,
        description="Value of the ink's pixels; the background has the other one. 1: as in the codes of MAML and "
        "Prototypical Networks; 0: Reptile.",
    )


class MiniImagenetOptions(ImageOptions):
    """miniImageNet (Vinyals 2016; split of Ravi and Larochelle 2017): 64/16/20 classes x 600, 84x84x3."""

    name: Literal["miniimagenet"] = "miniimagenet"
    normalisation: Literal["unit", "standard", "imagenet"] = Field(
        default="unit",
        description="unit: x/255 (Finn et al. 2017); standard: minus the mean, over the standard "
        "deviation of each channel of the training classes; imagenet: with ImageNet's mean and "
        "standard deviation (Antoniou et al. 2019).",
    )


class ImageFolderOptions(ImageOptions):
    """Images of your own: class/*.png|jpg|jpeg|webp|bmp, or train|val|test/class/*."""

    name: Literal["imagefolder"] = "imagefolder"
    path: Path = Field(strict=False, description="The folder; relative to the spec's own folder.")
    image_size: int = Field(
        default=84, ge=8, le=1024, description="Height and width in pixels after resizing, by Lanczos."
    )
    channels: Literal[1, 3] = Field(default=3, description="1: grey; 3: RGB. What is transparent becomes white.")
    split: tuple[float, float, float] = Field(
        default=(0.64, 0.16, 0.2),
        strict=False,
        description="Shares of the classes for training, validation and test, where the folder has no "
        "train, val and test folders of its own; they add up to 1.",
    )
    split_seed: int = Field(default=0, ge=0, description="Seed of that division.")

    @field_validator("path")
    @classmethod
    def _no_nul(cls, path: Path) -> Path:
        if "\0" in str(path):
            raise PydanticCustomError("path_with_nul", "expected a path without NUL characters")
        return path


class SinusoidOptions(Options):
    """Regression tasks y = A sin(x - phase) + noise (Finn et al. 2017, section 5.1)."""

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


class BanditsOptions(Options):
    """Bernoulli multi-armed bandits (Duan et al. 2016, section 3.1): p of each arm uniform in [0, 1]."""

    name: Literal["bandits"] = "bandits"
    arms: int = Field(default=5, ge=2, le=10_000, description="Arms k.")
    pulls: int = Field(default=10, ge=1, le=100_000, description="Pulls n in a trial; each is an episode of one step.")


class MDPsOptions(Options):
    """Random tabular Markov decision processes (Duan et al. 2016, section 3.2), started in state 0."""

    name: Literal["mdps"] = "mdps"
    states: int = Field(default=10, ge=1, le=1000, description="States.")
    actions: int = Field(default=5, ge=2, le=1000, description="Actions.")
    horizon: int = Field(default=10, ge=1, le=10_000, description="Steps of an episode.")
    episodes: int = Field(default=10, ge=1, le=10_000, description="Episodes n in a trial.")
    dirichlet: float = Field(default=1.0, gt=0, description="Each P(. | s, a) ~ Dirichlet(this, ..., this).")
    reward_mean: float = Field(default=1.0, description="Mean of the normal that each mean reward R(s, a) comes from.")
    reward_std: float = Field(default=1.0, ge=0, description="Its standard deviation.")
    reward_noise: float = Field(default=1.0, ge=0, description="Standard deviation of a reward around R(s, a).")


DatasetOptions = Annotated[
    GlyphsOptions
    | OmniglotOptions
    | MiniImagenetOptions
    | ImageFolderOptions
    | SinusoidOptions
    | BanditsOptions
    | MDPsOptions,
    Field(discriminator="name"),
]
