"""Counter-based random numbers: a number is a pure function of a key and a counter.

Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011). It uses integer arithmetic only, so the bits are the same on every device, in a compiled program or
outside one. A batch of tasks is drawn at once, although each task has its own key.
"""

from __future__ import annotations

import functools
import math

import tensorflow as tf

FEISTEL_ROUNDS = 8
GAMMA_ROUNDS = 4
KEYS_AT_ONCE = 1024  # per draw, where classes may be large
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def threefry(key: tuple[tf.Tensor, tf.Tensor], counter: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """Return two random uint32 for each (key, counter); the four uint32 tensors broadcast together."""
    shape = functools.reduce(tf.broadcast_static_shape, (word.shape for word in (*key, *counter)))
    first, second = _rounds(*key, *counter)
    return tf.ensure_shape(first, shape), tf.ensure_shape(second, shape)


# A separate function for any shapes: its two hundred operations are traced once and not with every draw.
@tf.function(autograph=False, input_signature=[tf.TensorSpec(None, tf.uint32)] * 4)
def _rounds(key0: tf.Tensor, key1: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    keys = (key0, key1, key0 ^ key1 ^ tf.constant(PARITY, tf.uint32))
    first, second = first + keys[0], second + keys[1]
    for group in range(5):
        for bits in ROTATIONS[group % 2]:
            first = first + second
            second = _rotate_left(second, bits) ^ first
        first = first + keys[(group + 1) % 3]
        second = second + keys[(group + 2) % 3] + tf.constant(group + 1, tf.uint32)
    return first, second


def _rotate_left(x: tf.Tensor, bits: int) -> tf.Tensor:
    left = tf.bitwise.left_shift(x, tf.constant(bits, tf.uint32))
    return left | tf.bitwise.right_shift(x, tf.constant(32 - bits, tf.uint32))


class TaskKeys:
    """Draw by the keys of T tasks. Every draw takes a `purpose`, so that no two draws share numbers."""

    def __init__(self, key: tuple[tf.Tensor, tf.Tensor]):
        """Keep the two words of the keys, uint32 `[T]` each."""
        self.key = key
        self.tasks = key[0].shape[0]

    @classmethod
    def of_stream(cls, seed: int, split: str, index: tf.Tensor | int, tasks: int) -> TaskKeys:
        """Return keys of tasks `index` to `index + tasks - 1` of the stream (seed, split); index is below 2^63."""
        return cls.of_numbers(seed, split, tf.cast(index, tf.int64) + tf.range(tasks, dtype=tf.int64))

    @classmethod
    def of_numbers(cls, seed: int, split: str, number: tf.Tensor) -> TaskKeys:
        """Return the keys of `of_stream` with these numbers, int64 `[T]`; a number may stand in it more than once."""
        low = tf.cast(number & 0xFFFFFFFF, tf.uint32)
        high = tf.cast(tf.bitwise.right_shift(number, tf.constant(32, tf.int64)), tf.uint32)
        stream = (tf.constant(seed & 0xFFFFFFFF, tf.uint32), tf.constant(STREAMS[split], tf.uint32))
        return cls(threefry(stream, (low, high)))

    @classmethod
    def of_drawn(cls, drawn: tf.Tensor) -> TaskKeys:
        """Return keys that are functions of the tasks' draws, int32 `[T, n]`: equal tasks have equal keys."""
        words = tf.bitcast(drawn, tf.uint32)
        place = tf.cast(tf.range(drawn.shape[1]), tf.uint32)[None]
        stream = (tf.constant(0, tf.uint32), tf.constant(STREAMS["drawn"], tf.uint32))
        mixed = threefry(stream, (words, place))  # 2 x [T, n]
        return cls(tuple(tf.bitcast(tf.reduce_sum(tf.bitcast(word, tf.int32), axis=1), tf.uint32) for word in mixed))

    @classmethod
    def of_trials(cls, keys: tf.Tensor, number: tf.Tensor) -> TaskKeys:
        """Return keys of step `number` (int32 scalar) of trials with `keys`, uint32 `[T, 2]`."""
        step = tf.cast(number, tf.uint32)[None]
        return cls(threefry((keys[:, 0], keys[:, 1]), (step, tf.constant(STREAMS["step"], tf.uint32))))

    def numbered(self, number: tf.Tensor | int) -> TaskKeys:
        """Return keys of draw `number` (int32 scalar) among many of one purpose."""
        counter = (tf.cast(number, tf.uint32), tf.constant(STREAMS["draw"], tf.uint32))
        return TaskKeys(threefry(self.key, counter))

    def bits(self, purpose: str, *shape: int) -> tf.Tensor:
        """Draw random uint32, `[T, *shape]`."""
        size = 1
        for length in shape:
            size *= length
        half = (size + 1) // 2
        counter = tf.cast(tf.range(half), tf.uint32)[None]  # [1, n/2]
        key = (self.key[0][:, None], self.key[1][:, None])
        words = threefry(key, (counter, tf.constant(PURPOSES[purpose], tf.uint32)))
        return tf.reshape(tf.concat(words, axis=1)[:, :size], (self.tasks, *shape))

    def uniform(self, purpose: str, *shape: int, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
        """Draw float64 in [low, high), `[T, *shape]`, multiples of 2^-32 of the range."""
        fraction = tf.cast(self.bits(purpose, *shape), tf.float64) * 2.0**-32
        return low + (high - low) * fraction

    def bernoulli(self, purpose: str, probability: float, *shape: int) -> tf.Tensor:
        """Draw bool `[T, *shape]`, true with this probability, which is rounded to a multiple of 2^-16."""
        size = math.prod(shape)
        words = self.bits(purpose, (size + 1) // 2)  # of two draws each
        low, high = words & tf.constant(0xFFFF, tf.uint32), tf.bitwise.right_shift(words, tf.constant(16, tf.uint32))
        drawn = tf.cast(tf.concat([low, high], axis=1)[:, :size], tf.int32)
        return tf.reshape(drawn < round(probability * 2**16), (self.tasks, *shape))

    def normal(self, purpose: str, *shape: int) -> tf.Tensor:
        """Draw standard normal float64, `[T, *shape]` (Box and Muller 1958)."""
        pair = self.bits(purpose, 2, *shape)
        radius = (tf.cast(pair[:, 0], tf.float64) + 1.0) * 2.0**-32  # (0, 1]
        angle = tf.cast(pair[:, 1], tf.float64) * (2.0**-32 * 6.283185307179586)
        return tf.sqrt(-2.0 * tf.math.log(radius)) * tf.cos(angle)

    def log_gamma(self, purpose: str, concentration: tf.Tensor) -> tf.Tensor:
        """Draw logarithms of Gamma(concentration, 1) numbers, in its shape `[T, ...]` and dtype.

        Differences are logits of Beta draws, a softmax is a Dirichlet draw, and neither underflows. The rejection
        method is that of Marsaglia and Tsang (2000), which accepts over 95% of its candidates. Where all of the
        `GAMMA_ROUNDS` are rejected (6 draws in a million at concentration 1, fewer above), the candidate x = 0 is
        taken. Concentrations below 1 use Gamma(c + 1) U^(1 / c).
        """
        words = self.bits(purpose, 2 * GAMMA_ROUNDS + 1, *concentration.shape[1:])
        unit = (tf.cast(words, concentration.dtype) + 0.5) * 2.0**-32  # (0, 1]
        below = concentration < 1
        d = tf.where(below, concentration + 1, concentration) - 1 / 3
        c, drawn = tf.math.rsqrt(9 * d), tf.math.log(d)
        for first in range(0, 2 * GAMMA_ROUNDS, 4):
            radius, angle = tf.sqrt(-2 * tf.math.log(unit[:, first])), 6.283185307179586 * unit[:, first + 1]
            for x, u in ((radius * tf.cos(angle), unit[:, first + 2]), (radius * tf.sin(angle), unit[:, first + 3])):
                root = 1 + c * x
                log_v = 3 * tf.math.log(tf.maximum(root, 1e-6))
                accepted = (root > 0) & (tf.math.log(u) < x * x / 2 + d * (1 - root**3 + log_v))
                drawn = tf.where(accepted, tf.math.log(d) + log_v, drawn)
        return drawn + tf.where(below, tf.math.log(unit[:, -1]) / concentration, 0)

    def distinct(
        self, purpose: str, among: int, choose: int, *shape: int, counts: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Draw `choose` distinct numbers below `among` in random order, int32 `[T, *shape, choose]`.

        Random 32-bit keys are sorted; two equal keys (probability below among^2 / 2^33) keep their order.

        Args:
            purpose: The purpose of the draw, a key of `PURPOSES`.
            among: The bound of the numbers.
            choose: How many numbers are drawn.
            *shape: The shape of independent draws per task.
            counts: Bounds below `among` for each draw, int32, broadcast to `[T, *shape]`.
        """
        if counts is not None and among > 2 * KEYS_AT_ONCE:
            return self._distinct_in_parts(purpose, among, choose, shape, counts)
        # int32 keys: the sign bit is as random as the others
        keys = tf.bitcast(self.bits(purpose, *shape, among), tf.int32)
        keys = tf.maximum(keys, tf.int32.min + 1)
        if counts is not None:
            keys = tf.where(tf.range(among) < counts[..., None], keys, tf.int32.min)
        return tf.math.top_k(keys, choose).indices

    def orders(self, purpose: str, among: int, draws: int, first: tf.Tensor | int, count: int) -> tf.Tensor:
        """Draw some of the random orders that `distinct(purpose, among, among, draws)` draws, bit for bit.

        Args:
            purpose: The purpose of the draw, a key of `PURPOSES`.
            among: How many numbers are ordered.
            draws: How many orders there are; what follows the last one means nothing.
            first: The number of the first order that is drawn, from 0.
            count: How many are drawn, from there on.

        Returns:
            The orders, int32 `[T, count, among]`.
        """
        place = (first + tf.range(count))[:, None] * among + tf.range(among)
        keys = tf.bitcast(self._bits_at(purpose, draws * among, place), tf.int32)
        return tf.math.top_k(tf.maximum(keys, tf.int32.min + 1), among).indices

    def permuted(self, purpose: str, among: int, places: tf.Tensor) -> tf.Tensor:
        """Return what stands at one place of a random order of the numbers below `among`, int32 `[T]`.

        Each key has an order of its own, of which no other place is computed: a Feistel network (Luby and Rackoff 1988)
        permutes 2^(2 h) numbers, at most four times as many, and is applied again while the result is too large.

        Args:
            purpose: The purpose of the draw, a key of `PURPOSES`.
            among: How many numbers are ordered.
            places: The place in the order of each key, int32 `[T]`, from 0 to among - 1.
        """
        half = max(1, -(-(among - 1).bit_length() // 2))  # bits
        mask = tf.constant(2**half - 1, tf.uint32)

        def once(number: tf.Tensor) -> tf.Tensor:
            left = tf.bitwise.right_shift(number, tf.constant(half, tf.uint32))
            right = number & mask
            for turn in range(FEISTEL_ROUNDS):
                counter = tf.constant(PURPOSES[purpose] + (turn << 16), tf.uint32)
                word, _ = threefry(self.key, (right, counter))
                left, right = right, left ^ (word & mask)
            return tf.bitwise.left_shift(left, tf.constant(half, tf.uint32)) | right

        def is_large(number: tf.Tensor) -> tf.Tensor:
            return tf.cast(number, tf.int64) >= among

        (number,) = tf.while_loop(
            lambda number: tf.reduce_any(is_large(number)),
            lambda number: (tf.where(is_large(number), once(number), number),),
            (once(tf.cast(places, tf.uint32)),),
        )
        return tf.cast(tf.ensure_shape(number, (self.tasks,)), tf.int32)

    def _bits_at(self, purpose: str, size: int, place: tf.Tensor) -> tf.Tensor:
        """Return what `bits(purpose, size)` has at these places, int32 `[m, n]`, uint32 `[T, m, n]`."""
        half = (size + 1) // 2  # `bits` makes these from the first words, the others from the second ones
        first = place < half
        counter = tf.cast(tf.where(first, place, place - half), tf.uint32)[None]
        key = (self.key[0][:, None, None], self.key[1][:, None, None])
        return tf.where(first, *threefry(key, (counter, tf.constant(PURPOSES[purpose], tf.uint32))))

    def _distinct_in_parts(
        self, purpose: str, among: int, choose: int, shape: tuple[int, ...], counts: tf.Tensor
    ) -> tf.Tensor:
        """Draw what `distinct` draws, bit for bit, with keys up to the largest of the counts and no further."""
        draws = math.prod(shape)
        bounds = tf.reshape(tf.broadcast_to(counts, (self.tasks, *shape)), (self.tasks, draws, 1))

        def part(start: tf.Tensor, keys: tf.Tensor, numbers: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            own = start + tf.range(KEYS_AT_ONCE)
            place = (tf.range(draws) * among)[:, None] + own  # [draws, n]
            new = tf.bitcast(self._bits_at(purpose, draws * among, place), tf.int32)
            new = tf.where(own < bounds, tf.maximum(new, tf.int32.min + 1), tf.int32.min)
            keys = tf.concat([keys, new], axis=2)  # equal keys keep their order
            numbers = tf.concat([numbers, tf.broadcast_to(own, new.shape)], axis=2)
            keys, best = tf.math.top_k(keys, choose)
            return start + KEYS_AT_ONCE, keys, tf.gather(numbers, best, batch_dims=2)

        none = tf.fill((self.tasks, draws, choose), tf.int32.min)
        _, _, numbers = tf.while_loop(
            lambda start, *_: start < tf.reduce_max(counts), part, (0, none, tf.zeros_like(none)), parallel_iterations=1
        )
        return tf.reshape(numbers, (self.tasks, *shape, choose))


# Numbers that name streams and draws; changing one changes every result.
STREAMS = {"train": 1, "val": 2, "test": 3, "drawn": 4, "step": 5, "draw": 6, "within-alphabet": 7}
PURPOSES = {
    "classes": 0,
    "images": 1,
    "turns": 2,
    "amplitude": 3,
    "phase": 4,
    "x": 5,
    "noise": 6,
    "mini-batches": 7,
    "arms": 8,
    "transitions": 9,
    "rewards": 10,
    "outcome": 11,
    "action": 12,
    "posterior": 13,
    "ties": 14,
    "explore": 15,
    "groups": 16,
    "order": 17,
    "head": 18,
    "crop": 21,
    "resized-crop": 22,
    "rotation": 23,
    "flip": 24,
    "colour": 25,
    "colour-order": 26,
    "dropout": 27,
    "dropblock": 28,
    "trial-order": 29,
}
