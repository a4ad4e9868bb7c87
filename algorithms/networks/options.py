"""Options of the networks: the section `network` of a spec."""

from __future__ import annotations

import abc
import difflib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ...datasets.options import Options

Width = Annotated[int, Field(ge=1, le=4096)]
LEAST_DROPPED = 0.001  # share of values; draws have steps of 2^-16
BODY = "body"  # in `freeze`: all layers but the last one, the head


class Pretrained(Options):
    """Hold the options of a network whose weights may start from those of a run, and stay as they are.

    Options of a network of another package that derive from this class have them too.
    """

    init: Path | None = Field(
        default=None,
        strict=False,
        description="Start from the weights of this finished run, a folder or a file of `metarun pack`; relative to "
        "the spec's own folder, with -s to the current one. The whole body must match, a last layer that does not "
        "starts afresh.",
    )
    init_digest: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{16}$",
        examples=["0123456789abcdef"],
        description="Digest of the weights that init must have. metarun writes it into the spec of a run.",
    )
    freeze: tuple[str, ...] | None = Field(
        default=None,
        strict=False,
        description="Layers that the outer optimizer leaves as they are: names (conv1), kinds (norm: all of them), "
        "parameters (norm1/scale), or body (all but the last layer). The inner loop adapts them as before.",
    )

    def resolved(self, folder: Path) -> Options:
        if self.init is None:
            return self
        return self.model_copy(update={"init": (folder / self.init.expanduser()).resolve()})

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        if self.init_digest and self.init is None:
            yield "network.init_digest", "has no effect without init"
        if self.freeze is not None and not self.freeze:
            yield "network.freeze", "has no effect: it names no layer"

    def frozen(self, parameters: Collection[str], head: Collection[str]) -> set[str]:
        """Return the names of the parameters that `freeze` names.

        Args:
            parameters: the names of all parameters, such as conv1/kernel.
            head: those of the last layer.

        Raises:
            ValueError: a name of `freeze` is that of no layer.
        """
        groups: dict[str, set[str]] = {BODY: set(parameters) - set(head)}
        for name in parameters:
            layer = name.rpartition("/")[0]
            for group in (name, layer, re.sub(r"\d+$", "", layer)):
                groups.setdefault(group, set()).add(name)
        for name in self.freeze or ():
            if name not in groups:
                near = difflib.get_close_matches(name, groups, n=1)
                layers = dict.fromkeys([BODY, *(each.rpartition("/")[0] for each in parameters)])
                way_out = f"did you mean {near[0]}?" if near else f"expected {', '.join(layers)}"
                raise ValueError(f"there is no layer {name!r} to freeze; {way_out}")
        return set[str]().union(*(groups[name] for name in self.freeze or ()))


class NetworkOptions(Pretrained):
    """Hold options of batch normalisation, which the feedforward networks share."""

    batch_norm: bool = Field(default=True, description="Batch normalisation after each hidden layer.")
    norm_scale: bool = Field(default=True, description="Learn batch norm's scale gamma (Finn's code has none).")
    norm_epsilon: float = Field(default=1e-3, gt=0, description="Constant added to the variance in batch norm.")
    norm_momentum: float = Field(
        default=0.9,
        ge=0,
        lt=1,
        description="Weight of the past in batch norm's running averages, which the inductive protocol uses; maml and "
        "reptile never do.",
    )

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        algorithm = experiment.algorithm.name
        if experiment.kind.plays_trials:
            yield "network.name", f"{algorithm} needs a recurrent network: use gru, not {experiment.network.name}"
            return
        averages = experiment.entry.uses_running_averages
        if not self.batch_norm:
            for option in ("norm_scale", "norm_epsilon", "norm_momentum"):
                if self.is_changed(option):
                    yield f"network.{option}", "has no effect with batch_norm: false"
        elif self.is_changed("norm_momentum") and (not averages or experiment.protocol == "transductive"):
            who = "the transductive protocol" if averages else algorithm
            yield "network.norm_momentum", f"has no effect: {who} never uses running averages"
        if experiment.protocol == "transductive" and not self.batch_norm:
            yield (
                "protocol",
                "transductive has no effect with batch_norm: false, every query is on its own: write inductive",
            )
        yield from super().conflicts(experiment)
        if self.freeze:
            names = self.parameter_names(experiment.entry.has_head)
            try:
                self.frozen(names, [name for name in names if name.startswith("head/")])
            except ValueError as error:
                yield "network.freeze", str(error)

    def parameter_names(self, has_head: bool) -> list[str]:
        """Return the names of the parameters in their order, with those of a last layer or without."""
        end = [f"head/{part}" for part in ("kernel", "bias") if has_head]
        return [name for layer, norm in self.body.items() for name in self._names_of_layer(layer, norm)] + end

    @property
    @abc.abstractmethod
    def body(self) -> dict[str, str]:
        """Return the names of the hidden layers in their order, each with that of its batch norm."""

    def _names_of_layer(self, layer: str, norm: str) -> list[str]:
        if not self.batch_norm:
            return [f"{layer}/kernel", f"{layer}/bias"]
        return [f"{layer}/kernel", *[f"{norm}/{part}" for part in ("scale", "offset")][not self.norm_scale :]]


class Conv4Options(NetworkOptions):
    """Build four 3x3 convolutions (Vinyals et al. 2016), each with batch norm and ReLU."""

    name: Literal["conv4"] = "conv4"
    filters: int = Field(default=64, ge=1, le=4096, description="Filters of each convolution.")
    downsample: Literal["max_pool", "stride"] = Field(
        default="max_pool", description="Halve the image by 2x2 max-pooling or by convolutions of stride 2."
    )
    pool_padding: Literal["valid", "same"] = Field(
        default="valid", description="Padding of the max-pooling: 84 pixels end as 5 (valid) or 6 (same)."
    )
    features: Literal["flatten", "mean"] = Field(
        default="flatten", description="Last feature map to vector: flattened, or its mean over space."
    )
    initializer: Literal["pytorch", "he"] | None = Field(
        default=None,
        description="Initial values of the convolutions and of batch norm's scales. pytorch: as PyTorch had them when "
        "the papers were written (until 1.1), convolutions within 1/sqrt(9 x channels) of 0, scales between 0 and 1, "
        "both uniform. he: convolutions normal with variance 2/(9 x filters) (He et al. 2015, by the outputs), scales "
        "of 1. Default: convolutions of Glorot's uniform distribution, scales of 1.",
    )
    head_initializer: Literal["glorot_uniform", "normal"] = Field(
        default="glorot_uniform",
        description="Initial values of the last layer of maml and reptile; normal has "
        "standard deviation 1 (Finn's code on Omniglot).",
    )

    @property
    def body(self) -> dict[str, str]:
        return {f"conv{number}": f"norm{number}" for number in range(1, 5)}

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        if experiment.dataset.has_images is False:
            yield "network.name", f"conv4 reads images; {experiment.dataset.name} has numbers: use mlp"
        if self.downsample == "stride" and self.is_changed("pool_padding"):
            yield "network.pool_padding", "has no effect with downsample: stride"
        if not experiment.entry.has_head and self.is_changed("head_initializer"):
            yield "network.head_initializer", f"has no effect: {experiment.algorithm.name} has no last layer of its own"
        yield from super().conflicts(experiment)


class ResNet12Options(NetworkOptions):
    """Build the residual network of MetaOptNet (Lee et al. 2019, arXiv:1904.03758) for photographs.

    It has four blocks of three 3x3 convolutions, which halve the image. Its layers are conv1 to conv12 with norm1 to
    norm12, and the shortcuts shortcut1 to shortcut4 with norm13 to norm16. It multiplies 36 times as much as conv4.
    maml and reptile, where each task has its own weights, are slower still, and need memory for a network per task.
    """

    name: Literal["resnet12"] = "resnet12"
    norm_epsilon: float = Field(default=1e-5, gt=0, description="Constant added to the variance in batch norm.")
    widths: tuple[Width, Width, Width, Width] = Field(
        default=(64, 160, 320, 640), strict=False, description="Filters of each convolution of a block."
    )
    activation: Literal["leaky_relu", "relu"] = Field(
        default="leaky_relu", description="leaky_relu has the slope 0.1 below 0, as in the paper's code."
    )
    features: Literal["flatten", "mean"] = Field(
        default="flatten", description="Last feature map to vector: flattened, as in the paper, or its mean over space."
    )
    drop_rate: float = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="Share of values that a training step sets to 0 at the end of each block, by dropout in blocks 1 "
        "and 2, by DropBlock in 3 and 4, 0 or at least 0.001; the paper's code has 0.1. Not for maml and reptile.",
    )
    drop_block: int | None = Field(
        default=5,
        ge=1,
        description="Side of the squares that DropBlock drops (Ghiasi et al. 2018), whole channels where the image is "
        "not larger; the paper's code has 5, and 2 for images of 32 pixels. null: blocks 3 and 4 drop nothing.",
    )

    @property
    def body(self) -> dict[str, str]:
        return {
            name: f"norm{number}"
            for block in range(1, 5)
            for name, number in (
                *((f"conv{number}", number) for number in range(3 * block - 2, 3 * block + 1)),
                (f"shortcut{block}", 12 + block),
            )
        }

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        if experiment.dataset.has_images is False:
            yield "network.name", f"resnet12 reads images; {experiment.dataset.name} has numbers: use mlp"
        if not self.batch_norm:
            yield "network.batch_norm", "is false: resnet12 has batch norm after each convolution"
        if self.drop_rate and not experiment.entry.drops:
            yield (
                "network.drop_rate",
                f"is {self.drop_rate:g}: a step of {experiment.algorithm.name} draws no random numbers, so it cannot "
                "drop values: write 0",
            )
        elif 0 < self.drop_rate < LEAST_DROPPED:
            yield (
                "network.drop_rate",
                f"is {self.drop_rate:g}, which drops next to nothing: write 0, or at least {LEAST_DROPPED:g}",
            )
        elif not self.drop_rate and self.is_changed("drop_block"):
            yield "network.drop_block", "has no effect with drop_rate: 0"
        yield from super().conflicts(experiment)


class MLPOptions(NetworkOptions):
    """Build fully connected layers with ReLU; a linear last layer."""

    name: Literal["mlp"] = "mlp"
    hidden: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field(
        default=(40, 40), strict=False, description="Widths of the hidden layers."
    )
    batch_norm: bool = Field(default=False, description="Batch normalisation after each hidden layer.")
    initializer: Literal["glorot_uniform", "truncated_normal"] = Field(
        default="glorot_uniform",
        description="Initial values of the weights; truncated_normal has standard deviation "
        "0.01 (Finn's code on sinusoids).",
    )

    @property
    def body(self) -> dict[str, str]:
        return {f"dense{number}": f"norm{number}" for number in range(1, len(self.hidden) + 1)}


class GRUOptions(Options):
    """Build a gated recurrent network with a linear last layer (Duan et al. 2016)."""

    name: Literal["gru"] = "gru"
    units: int = Field(default=256, ge=1, le=65536, description="Hidden units.")
    activation: Literal["relu", "tanh"] = Field(
        default="relu", description="Activation of the candidate state; the paper's code has relu, the usual GRU tanh."
    )
    weight_norm: bool = Field(default=True, description="Weight normalisation (Salimans and Kingma 2016).")
    layer_norm: bool | None = Field(
        default=None,
        description="Layer normalisation of the products with inputs and memory (Ba et al. 2016), in place of "
        "weight_norm. Default: false.",
    )
    forget_bias: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="Untrained, the memory keeps sigmoid(forget_bias) of itself at each step (Jozefowicz et al. 2015). "
        "Default: 0.",
    )

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        if not experiment.kind.plays_trials:
            yield "network.name", f"gru is for rl2: {experiment.algorithm.name} has conv4, resnet12 and mlp"
        if self.layer_norm and self.weight_norm:
            yield "network.layer_norm", "has no use beside weight_norm, whose lengths it undoes: weight_norm: false"


NetworkChoice = Annotated[Conv4Options | ResNet12Options | MLPOptions | GRUOptions, Field(discriminator="name")]
