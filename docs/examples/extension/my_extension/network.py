"""A network: any Keras model."""

from typing import Any, Literal

from pydantic import Field

from metarun.datasets.options import Options


class MyBackbone(Options):
    """Two strided convolutions with batch norm."""

    name: Literal["mybackbone"] = "mybackbone"
    width: int = Field(default=32, ge=1, description="Filters of each convolution.")

    def build(self, input_shape: tuple[int, ...], outputs: int | None, precision: str, seed: int) -> Any:
        from keras import Input, Sequential, layers

        model = Sequential([Input(input_shape)])
        for _ in range(2):
            model.add(layers.Conv2D(self.width, 3, strides=2, padding="same", use_bias=False))
            model.add(layers.BatchNormalization())
            model.add(layers.ReLU())
        model.add(layers.Flatten())
        if outputs is not None:  # None: an embedding is wanted
            model.add(layers.Dense(outputs))
        return model
