"""Options of the networks: the section `network` of a spec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from ...datasets.options import Options


class NetworkOptions(Options):
    """Options of batch normalisation, which conv4 and mlp share."""

    batch_norm: bool = Field(default=True, description="Batch normalisation after each hidden layer.")
    norm_scale: bool = Field(default=True, description="Learn batch norm's scale gamma (Finn's code has none).")
    norm_epsilon: float = Field(default=1e-3, gt=0, description="Constant added to the variance in batch norm.")
    norm_momentum: float = Field(
        default=0.9,
        ge=0,
        lt=1,
        description="Weight of the past in batch norm's running averages, which only the "
        "inductive protocol of protonet and matchingnet uses.",
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


class Conv4Options(NetworkOptions):
    """Four 3x3 convolutions (Vinyals et al. 2016), each with batch norm and ReLU."""

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
    initializer: Literal["pytorch"] | None = Field(
        default=None,
        description="Initial values of the convolutions and of batch norm's scales. pytorch: as PyTorch had them when "
        "the papers were written (until 1.1), convolutions within 1/sqrt(9 x channels) of 0, scales between 0 and 1, "
        "both uniform. Default: convolutions of Glorot's uniform distribution, scales of 1.",
    )
    head_initializer: Literal["glorot_uniform", "normal"] = Field(
        default="glorot_uniform",
        description="Initial values of the last layer of maml and reptile; normal has "
        "standard deviation 1 (Finn's code on Omniglot).",
    )

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        if experiment.dataset.has_images is False:
            yield "network.name", f"conv4 reads images; {experiment.dataset.name} has numbers: use mlp"
        if self.downsample == "stride" and self.is_changed("pool_padding"):
            yield "network.pool_padding", "has no effect with downsample: stride"
        if not experiment.entry.has_head and self.is_changed("head_initializer"):
            yield "network.head_initializer", f"has no effect: {experiment.algorithm.name} has no last layer of its own"
        yield from super().conflicts(experiment)


class MLPOptions(NetworkOptions):
    """Fully connected layers with ReLU; a linear last layer."""

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


class GRUOptions(Options):
    """A gated recurrent network with a linear last layer (Duan et al. 2016)."""

    name: Literal["gru"] = "gru"
    units: int = Field(default=256, ge=1, le=65536, description="Hidden units.")
    activation: Literal["relu", "tanh"] = Field(
        default="relu", description="Activation of the candidate state; the paper's code has relu, the usual GRU tanh."
    )
    weight_norm: bool = Field(default=True, description="Weight normalisation (Salimans and Kingma 2016).")

    def conflicts(self, experiment: Any) -> Iterator[tuple[str, str]]:
        if not experiment.kind.plays_trials:
            yield "network.name", f"gru is for rl2: {experiment.algorithm.name} has conv4 and mlp"


NetworkChoice = Annotated[Conv4Options | MLPOptions | GRUOptions, Field(discriminator="name")]
