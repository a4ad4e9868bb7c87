"""One run over many workers: processes that share out the tasks of every meta-batch and add up what they find.

    g = sum_w sum_{i in tasks of worker w} g_i / T                (the meta-gradient of one worker with all T tasks)

Each worker holds the same variables, sums over all workers are the same bits everywhere (one all-reduce, a ring over
gRPC, or NCCL on GPUs), and each makes the same update with them: nothing else has to be kept in step. A worker is a
process with one device, on whatever host. `tf.distribute.MultiWorkerMirroredStrategy` connects them; its replica
contexts are not used, because their reductions cannot stand in a loop of the graph, where RL^2 needs them.
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
    """Worker `index` of `count`; number 0 is the chief. A sum is waited for until all workers have called it."""

    index: int = 0
    count: int = 1
    order: Any = field(default=None, repr=False, compare=False)  # a variable that all sums name, so that none overtakes

    def total(self, values: Any) -> Any:
        """Sum over all workers of a structure of floating-point tensors of static shapes, which all have alike.

        One message for each dtype; not in a program that XLA compiles. tf.errors.OpError where a worker is lost.
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
        """The number that the chief gives, or 0 where any worker wants to stop."""
        said, stops = chief if self.index == 0 else 0, stop
        said, stops = self.total([tf.constant(float(number), tf.float64) for number in (said, stops)])
        return 0 if stops else int(said)

    def spread(self, variables: Sequence[tf.Variable]) -> None:
        """Assign the chief's values on all workers."""
        if self.count > 1:
            own = [tf.cast(each, each.dtype if each.dtype.is_floating else tf.float64) for each in variables]
            said = own if self.index == 0 else [tf.zeros_like(each) for each in own]
            for variable, value in zip(variables, self.total(said), strict=True):
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
    """A worker's tasks of a meta-batch: `before` tasks of other workers come before them, `after` behind them.

    Trials are not shared out by this: a learner of trials gets all of them, and plays its part of each mini-batch.
    """

    workers: Workers = ALONE
    before: int = 0
    after: int = 0

    @classmethod
    def of(cls, tasks: int, workers: Workers) -> tuple[Share, int]:
        """The share of this worker in `tasks` tasks, and how many these are: tasks w T / N .. (w + 1) T / N - 1."""
        first, end = (tasks * number // workers.count for number in (workers.index, workers.index + 1))
        return cls(workers, first, tasks - end), end - first

    def whole(self, tasks: int) -> int:
        """Tasks of the meta-batch, where this worker has `tasks`."""
        return self.before + tasks + self.after

    def mean(self, values: Any, tasks: int) -> Any:
        """Mean over the meta-batch of a structure of tensors that are means over this worker's `tasks`."""
        if self.workers.count == 1:
            return values
        weight = tasks / self.whole(tasks)
        return self.workers.total(tf.nest.map_structure(lambda value: weight * value, values))


WHOLE = Share()  # of the one worker there is


def join(addresses: Sequence[str], index: int) -> Workers:
    """Meet the other workers, `addresses` "host:port" in their order; waits for them.

    To be called before TensorFlow has run anything. Workers of one host take its GPUs in turn where they see several.
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
