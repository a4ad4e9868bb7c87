"""A network for metarun: a Keras model of strided convolutions."""

from typing import Literal

from pydantic import Field

from metarun.datasets.options import Options


class Backbone(Options):
    """Build strided convolutions with batch norm and ReLU."""

    name: Literal["backbone"] = "backbone"
    width: int = Field(default=32, ge=1, description="Filters of each convolution.")
    depth: int = Field(default=4, ge=1, description="Number of convolutions.")

    def build(self, input_shape: tuple[int, ...], outputs: int | None, precision: str, seed: int):
        from keras import Input, Sequential, layers

        model = Sequential([Input(input_shape)])
        for _ in range(self.depth):
            model.add(layers.Conv2D(self.width, 3, strides=2, padding="same", use_bias=False))
            model.add(layers.BatchNormalization(momentum=0.9))
            model.add(layers.ReLU())
        model.add(layers.Flatten())
        if outputs is not None:  # None: the learner wants an embedding
            model.add(layers.Dense(outputs))
        return model
