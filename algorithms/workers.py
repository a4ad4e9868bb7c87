"""Training one run with several workers: processes that divide the tasks of every meta-batch and sum their results.

    g = sum_w sum_{i in tasks of worker w} g_i / T                (the meta-gradient of one worker with all T tasks)

Each worker holds the same variables. Sums over all workers are bitwise equal everywhere (one all-reduce, a ring over
gRPC, or NCCL on GPUs). Each worker makes the same update with them, so nothing else needs synchronisation. A worker is
a process with one device, on any host. `tf.distribute.MultiWorkerMirroredStrategy` connects them. Its replica contexts
are not used, because their reductions cannot be in a loop of the graph, where RL^2 needs them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import tensorflow as tf


@dataclass(frozen=True)
class Workers:
    """Add up and agree as worker `index` of `count`; number 0 is the chief. A sum blocks until all workers have called
    it.
    """

    index: int = 0
    count: int = 1
    order: Any = field(default=None, repr=False, compare=False)  # a variable that keeps all sums in order

    def total(self, values: Any) -> Any:
        """Return the sum over all workers of a structure of floating-point tensors.

        The structure and its static shapes must be the same on all workers. Each dtype takes one message. Do not call
        it in a program that XLA compiles.

        Raises:
            tf.errors.OpError: Another worker is lost.
        """
        if self.count == 1:
            return values
        flat = [tf.convert_to_tensor(value) for value in tf.nest.flatten(values)]
        summed: dict[int, tf.Tensor] = {}
        for dtype in sorted({one.dtype for one in flat}, key=str):
            alike = {number: one for number, one in enumerate(flat) if one.dtype == dtype}
            vector = self._all_reduce(tf.concat([tf.reshape(one, [-1]) for one in alike.values()], axis=0))
            parts = tf.split(vector, [math.prod(one.shape) for one in alike.values()])
            summed |= {number: tf.reshape(part, flat[number].shape) for number, part in zip(alike, parts, strict=True)}
        return tf.nest.pack_sequence_as(values, [summed[number] for number in range(len(flat))])

    def agree(self, chief: int, stop: bool = False) -> int:
        """Return the chief's number, or 0 if any worker wants to stop.

        Args:
            chief: The number; only the chief's value is used.
            stop: Whether this worker wants to stop.
        """
        own = (chief if self.index == 0 else 0, stop)
        agreed, stops = self.total([tf.constant(float(number), tf.float64) for number in own])
        return 0 if stops else int(agreed)

    def spread(self, variables: Sequence[tf.Variable]) -> None:
        """Assign the chief's values of the variables on all workers."""
        if self.count > 1:
            own = [tf.cast(each, each.dtype if each.dtype.is_floating else tf.float64) for each in variables]
            values = own if self.index == 0 else [tf.zeros_like(each) for each in own]
            for variable, value in zip(variables, self.total(values), strict=True):
                variable.assign(tf.cast(value, variable.dtype))

    def _all_reduce(self, vector: tf.Tensor) -> tf.Tensor:
        gpu = bool(tf.config.list_logical_devices("GPU"))
        with tf.device("GPU:0" if gpu else "CPU:0"):
            return tf.raw_ops.CollectiveReduceV2(
                input=vector,
                group_size=self.count,
                group_key=1,
                instance_key=zlib.crc32(f"{vector.dtype.name} {vector.shape[0]}".encode()) >> 1,
                ordering_token=[self.order.handle],
                merge_op="Add",
                final_op="Id",
                communication_hint="nccl" if gpu else "ring",
            )


ALONE = Workers()


class Share(NamedTuple):
    """Hold a worker's part of the tasks of a meta-batch.

    Trials are not divided by this. A learner of trials gets all of them, and plays its part of each mini-batch.

    Attributes:
        workers: All workers of the run.
        before: The number of tasks that lower-numbered workers compute.
        after: The number of tasks that higher-numbered workers compute.
    """

    workers: Workers = ALONE
    before: int = 0
    after: int = 0

    @classmethod
    def of(cls, tasks: int, workers: Workers) -> tuple[Share, int]:
        """Return this worker's share of `tasks` tasks and its size: tasks w T / N to (w + 1) T / N - 1."""
        first, end = (tasks * number // workers.count for number in (workers.index, workers.index + 1))
        return cls(workers, first, tasks - end), end - first

    def whole(self, tasks: int) -> int:
        """Return the number of tasks of the meta-batch, where this worker has `tasks`."""
        return self.before + tasks + self.after

    def mean(self, values: Any, tasks: int) -> Any:
        """Return the mean over the meta-batch of tensors that are means over this worker's `tasks`."""
        if self.workers.count == 1:
            return values
        weight = tasks / self.whole(tasks)
        return self.workers.total(tf.nest.map_structure(lambda value: weight * value, values))


WHOLE = Share()  # the share of a single worker


def join(addresses: Sequence[str], index: int) -> Workers:
    """Connect to the other workers; blocks until all have connected.

    Call it before TensorFlow has run anything. If a worker sees several GPUs, the workers of one host take them in
    turn.

    Args:
        addresses: "host:port" of each worker, in their order.
        index: The number of this worker.
    """
    hosts = [address.rpartition(":")[0] for address in addresses]
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.set_visible_devices(gpus[hosts[:index].count(hosts[index]) % len(gpus)], "GPU")
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(addresses)}), task_type="worker", task_id=index, rpc_layer="grpc"
    )
    tf.distribute.MultiWorkerMirroredStrategy(resolver)
    with tf.device("CPU:0"):
        return Workers(index, len(addresses), tf.Variable(0.0, trainable=False))
