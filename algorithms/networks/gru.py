"""A GRU with a linear head (Cho et al. 2014), its reset gate after the product as in the code of Duan et al. 2016.

    r_t = sigmoid(x_t W_r + h_{t-1} U_r + b_r)
    u_t = sigmoid(x_t W_u + h_{t-1} U_u + b_u)
    c_t = f(x_t W_c + r_t * (h_{t-1} U_c) + b_c)              f: ReLU or tanh
    h_t = (1 - u_t) * h_{t-1} + u_t * c_t,   h_0 = 0          outputs_t = h_t V + b

Each matrix is weight-normalised by column, w = g v / |v| (Salimans and Kingma 2016, https://arxiv.org/abs/1602.07868).
g starts as |v|, so the initial weights are those of the initializers, and no data are needed.

With `layer_norm` the products are normalised over their units (Ba et al. 2016, https://arxiv.org/abs/1607.06450), each
with gains and offsets: x W and h U of both gates together, x W and h U of the candidate. The offset of h U_c is inside
the reset gate's product. `forget_bias` b starts b_u at -b, so that h keeps sigmoid(b) of itself at a step.

For speed the gates share one matrix, and the inputs of all steps are projected in one product. The derivative through
time is written by hand: its loop also has one product per step, and the gradient of a matrix is one product over the
rows of all steps.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import keras
import tensorflow as tf

from .options import GRUOptions

GATES = 3  # reset, update, candidate
LAYER_NORM_EPSILON = 1e-8


class Weights(NamedTuple):
    """Hold the matrices that the parameters give: H units, D inputs, O outputs. The last three are for layer norm."""

    input: tf.Tensor  # [D, 3H]
    bias: tf.Tensor  # [3H]
    recurrent: tf.Tensor  # [H, 3H]
    head: tf.Tensor  # [H, O]
    head_bias: tf.Tensor  # [O]
    input_gain: tf.Tensor | None = None  # [3H]
    recurrent_gain: tf.Tensor | None = None  # [3H]
    recurrent_bias: tf.Tensor | None = None  # [3H]


class GRU:
    """Apply a recurrent network to one step, or to all steps of a batch; it holds the parameters."""

    def __init__(self, options: GRUOptions, inputs: int, outputs: int, precision: str, seed: int):
        """Create the parameters.

        Args:
            options: The section `network` of the spec.
            inputs: The number D of inputs.
            outputs: The number O of outputs.
            precision: The dtype of parameters and results.
            seed: The seed of the initial weights.
        """
        self.options, self.units, self.dtype = options, options.units, tf.as_dtype(precision)
        self.layers = (inputs * GATES * self.units, self.units * GATES * self.units, self.units * outputs)
        self.parameters: dict[str, tf.Variable] = {}
        glorot, orthogonal = keras.initializers.GlorotUniform, keras.initializers.Orthogonal
        kinds = {"input": (glorot, inputs), "recurrent": (orthogonal, self.units)}
        for offset, (name, (initializer, rows)) in enumerate(kinds.items()):
            gates = [initializer(seed=seed * 1000 + GATES * offset + gate)((rows, self.units)) for gate in range(GATES)]
            self._add_matrix(name, tf.concat([tf.convert_to_tensor(gate) for gate in gates], axis=1))
        self._add("bias", tf.repeat([0.0, 0.0 - (options.forget_bias or 0.0), 0.0], self.units))
        if options.layer_norm:
            self._add("input/gain", tf.ones(GATES * self.units))
            self._add("recurrent/gain", tf.ones(GATES * self.units))
            self._add("recurrent/bias", tf.zeros(GATES * self.units))
        self._add_matrix("head", glorot(seed=seed * 1000 + 2 * GATES)((self.units, outputs)))
        self._add("head/bias", tf.zeros(outputs))

    def weights(self, parameters: Mapping[str, tf.Tensor | tf.Variable] | None = None) -> Weights:
        """Return the matrices of `parameters`, by default of the variables.

        Call it once per update or roll-out, not once per step.
        """
        values = self.parameters if parameters is None else parameters

        def matrix(name: str) -> tf.Tensor:
            direction = tf.convert_to_tensor(values[f"{name}/direction" if self.options.weight_norm else name])
            if not self.options.weight_norm:
                return direction
            return direction * (values[f"{name}/length"] / tf.norm(direction, axis=0))

        bias, head_bias = (tf.convert_to_tensor(values[name]) for name in ("bias", "head/bias"))
        norms = ("input/gain", "recurrent/gain", "recurrent/bias") if self.options.layer_norm else ()
        more = (tf.convert_to_tensor(values[name]) for name in norms)
        return Weights(matrix("input"), bias, matrix("recurrent"), matrix("head"), head_bias, *more)

    def start(self, batch: int) -> tf.Tensor:
        """Return h_0 `[T, H]`."""
        return tf.zeros((batch, self.units), self.dtype)

    def step(self, weights: Weights, x: tf.Tensor, h: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return outputs `[T, O]` and the next h `[T, H]` from x `[T, D]`."""
        h, _ = self._cell(self._projected(weights, x), self._carried(weights, h)[0], h)
        return h @ weights.head + weights.head_bias, h

    def unroll(self, weights: Weights, xs: tf.Tensor) -> tf.Tensor:
        """Return outputs `[N, T, O]` from xs `[N, T, D]`, starting at h_0. It has first derivatives only."""
        steps, batch, inputs = xs.shape
        projected = self._projected(weights, tf.reshape(xs, (steps * batch, inputs)))
        states = self.states(tf.reshape(projected, (steps, batch, GATES * self.units)), weights)
        outputs = tf.reshape(states, (steps * batch, self.units)) @ weights.head + weights.head_bias
        return tf.reshape(outputs, (steps, batch, outputs.shape[-1]))

    def states(self, projected: tf.Tensor, weights: Weights) -> tf.Tensor:
        """Return h_1 .. h_N `[N, T, H]` from the projected inputs `[N, T, 3H]`."""
        trained = [weights.recurrent]
        if self.options.layer_norm:
            trained += [weights.recurrent_gain, weights.recurrent_bias]

        @tf.custom_gradient
        def call(projected: tf.Tensor, *trained: tf.Tensor):
            names = ("recurrent", "recurrent_gain", "recurrent_bias")
            used = weights._replace(**dict(zip(names, trained, strict=False)))
            states, kept = self._forward(projected, used)

            def back(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
                return self._backward(upstream, states, kept, used)

            return states, back

        return call(projected, *trained)

    def _projected(self, weights: Weights, x: tf.Tensor) -> tf.Tensor:
        """Return x W + b `[B, 3H]` from x `[B, D]`, with layer norm normalised before b."""
        product = x @ weights.input
        if weights.input_gain is not None:

            @tf.custom_gradient
            def normalise(product: tf.Tensor):
                normalised, inverses = self._normalised(product)
                return normalised, functools.partial(self._through_norm, normalised, inverses)

            product = normalise(product) * weights.input_gain
        return product + weights.bias

    def _carried(self, weights: Weights, h: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return h U `[T, 3H]`, with layer norm normalised; and for the derivative the results of `_normalised`."""
        product = h @ weights.recurrent
        if weights.recurrent_gain is None or weights.recurrent_bias is None:
            return product, []
        normalised, inverses = self._normalised(product)
        return normalised * weights.recurrent_gain + weights.recurrent_bias, [normalised, *inverses]

    def _normalised(self, product: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return a product `[B, 3H]` normalised, gates and candidate apart, and 1 / deviation of each `[B, 1]`."""
        parts, inverses = [], []
        for part in self._gates_and_candidate(product):
            centred = part - tf.reduce_mean(part, axis=1, keepdims=True)
            variance = tf.reduce_mean(tf.square(centred), axis=1, keepdims=True)
            inverses.append(tf.math.rsqrt(variance + LAYER_NORM_EPSILON))
            parts.append(centred * inverses[-1])
        return tf.concat(parts, axis=1), inverses

    def _through_norm(self, normalised: tf.Tensor, inverses: list[tf.Tensor], upstream: tf.Tensor) -> tf.Tensor:
        """Return the gradient for the argument of `_normalised` from that for its first result."""
        parts = []
        for *given, inverse in zip(*map(self._gates_and_candidate, (upstream, normalised)), inverses, strict=True):
            gradient, x = given
            mean, along = (tf.reduce_mean(each, axis=1, keepdims=True) for each in (gradient, gradient * x))
            parts.append(inverse * (gradient - mean - x * along))
        return tf.concat(parts, axis=1)

    def _gates_and_candidate(self, x: tf.Tensor) -> list[tf.Tensor]:
        return tf.split(x, [2 * self.units, self.units], axis=1)

    def _cell(self, projected: tf.Tensor, carried: tf.Tensor, h: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return the next h, and r, u, c and h U_c, which the derivative needs."""
        x_reset, x_update, x_candidate = tf.split(projected, GATES, axis=1)
        h_reset, h_update, h_candidate = tf.split(carried, GATES, axis=1)
        reset, update = tf.sigmoid(x_reset + h_reset), tf.sigmoid(x_update + h_update)
        inside = x_candidate + reset * h_candidate
        candidate = tf.nn.relu(inside) if self.options.activation == "relu" else tf.tanh(inside)
        return h + update * (candidate - h), [reset, update, candidate, h_candidate]

    def _forward(self, projected: tf.Tensor, weights: Weights) -> tuple[tf.Tensor, tf.Tensor]:
        """Return h_1 .. h_N and what `_cell` and `_carried` keep for the derivative, `[N, T, 4H]` or more."""
        steps, batch = projected.shape[:2]

        def step(number: tf.Tensor, h: tf.Tensor, states: tf.TensorArray, kept: tf.TensorArray):
            carried, more = self._carried(weights, h)
            h, keep = self._cell(projected[number], carried, h)
            return number + 1, h, states.write(number, h), kept.write(number, tf.concat(keep + more, axis=1))

        arrays = self._array(steps, batch, self.units), self._array(steps, batch, sum(self._kept))
        *_, states, kept = tf.while_loop(
            lambda number, *_: number < steps, step, (0, self.start(batch), *arrays), maximum_iterations=steps
        )
        return states.stack(), kept.stack()

    def _backward(
        self, upstream: tf.Tensor, states: tf.Tensor, kept: tf.Tensor, weights: Weights
    ) -> tuple[tf.Tensor, ...]:
        """Return the gradients for `projected` `[N, T, 3H]` and for U `[H, 3H]`, from that for h_1 .. h_N.

        With layer norm those for its gain and its offset `[3H]` follow.
        """
        steps, batch = states.shape[:2]
        before = tf.concat([self.start(batch)[None], states[:-1]], axis=0)  # h_0 .. h_{N-1}
        transposed = tf.transpose(weights.recurrent)

        def step(number: tf.Tensor, gradient: tf.Tensor, inputs: tf.TensorArray, carries: tf.TensorArray):
            reset, update, candidate, h_candidate, *norm = tf.split(kept[number], self._kept, axis=1)
            gradient += upstream[number]  # for h_t
            d_update = gradient * (candidate - before[number]) * update * (1 - update)
            d_candidate = gradient * update * self._slope(candidate)
            d_reset = d_candidate * h_candidate * reset * (1 - reset)
            d_carried = tf.concat([d_reset, d_update, d_candidate * reset], axis=1)
            d_product = d_carried  # for h_{t-1} U
            if norm:
                d_product = self._through_norm(norm[0], norm[1:], d_carried * weights.recurrent_gain)
            inputs = inputs.write(number, tf.concat([d_reset, d_update, d_candidate], axis=1))
            gradient = gradient * (1 - update) + d_product @ transposed
            return number - 1, gradient, inputs, carries.write(number, d_product)

        arrays = [self._array(steps, batch, GATES * self.units) for _ in range(2)]
        *_, inputs, carries = tf.while_loop(
            lambda number, *_: number >= 0, step, (steps - 1, self.start(batch), *arrays), maximum_iterations=steps
        )
        rows = tf.reshape(before, (steps * batch, self.units))
        carried = tf.reshape(carries.stack(), (steps * batch, GATES * self.units))
        gradients = inputs.stack(), tf.matmul(rows, carried, transpose_a=True)
        if not self.options.layer_norm:
            return gradients
        reset, *_, normalised, _, _ = tf.split(kept, self._kept, axis=2)
        d_gates, d_candidate = tf.split(gradients[0], [2 * self.units, self.units], axis=2)
        d_carried = tf.concat([d_gates, d_candidate * reset], axis=2)
        return *gradients, tf.reduce_sum(d_carried * normalised, axis=(0, 1)), tf.reduce_sum(d_carried, axis=(0, 1))

    def _slope(self, candidate: tf.Tensor) -> tf.Tensor:
        """Return f' where f = candidate."""
        if self.options.activation == "relu":
            return tf.cast(candidate > 0, self.dtype)
        return 1 - tf.square(candidate)

    @property
    def _kept(self) -> list[int]:
        """Return the widths of what `_forward` keeps."""
        return [self.units] * len("ruch") + [GATES * self.units, 1, 1] * bool(self.options.layer_norm)

    def _array(self, steps: int, batch: int, width: int) -> tf.TensorArray:
        return tf.TensorArray(self.dtype, steps, element_shape=(batch, width))

    def _add(self, name: str, value: tf.Tensor) -> None:
        self.parameters[name] = tf.Variable(tf.cast(value, self.dtype), name=name)

    @property
    def norm(self) -> list[tf.Variable]:
        """Return the gains and offsets of layer norm."""
        names = ("input/gain", "bias", "recurrent/gain", "recurrent/bias") if self.options.layer_norm else ()
        return [self.parameters[name] for name in names]

    def _add_matrix(self, name: str, value: tf.Tensor) -> None:
        if self.options.weight_norm:
            self._add(f"{name}/direction", value)
            self._add(f"{name}/length", tf.norm(tf.cast(value, self.dtype), axis=0))
        else:
            self._add(name, value)
