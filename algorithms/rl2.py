"""RL^2: fast reinforcement learning via slow reinforcement learning (Duan et al. 2016, arXiv:1611.02779).

A recurrent policy plays whole trials of several episodes in one environment. Its memory lasts for the trial (section
2.2), and training it for the reward of whole trials makes it learn within a trial. At each step it sees the
observation, and the action, the reward and the end-of-episode flag of the step before. An iteration:

    G_t = r_t + gamma G_{t+1},  V_t = the baseline's estimate of it                          (over the WHOLE trial)
    A_t = delta_t + gamma lambda A_{t+1},  delta_t = r_t + gamma V_{t+1} - V_t,  V_N = A_N = 0     (Schulman 2016)
    rho_t = pi(a_t | ...) / pi_old(a_t | ...)
    maximise  mean of min(rho_t A_t, clip(rho_t, 1 - c, 1 + c) A_t) + bonus * entropy   (PPO, Schulman et al. 2017)

with A standardised over the batch, by `epochs` passes over mini-batches of whole trials and full back-propagation
through time. Of the passes whose mean KL(pi_old || pi) is within `kl_limit`, the one with the best mean of rho_t A_t is
kept; if there is none, or if the KL over the whole batch is larger, the step is shortened by `backtrack_factor` until
that KL is within the limit. The baseline, a recurrent network of its own, regresses G normalised by a running mean and
standard deviation, by as many passes. By options: without `kl_limit` the last pass is kept; `shuffle` gives each pass
another order of the trials; A keeps its scale; the baseline regresses V_t + A_t (`td_lambda`), or by Huber's loss.

Deviations from the paper, and why: it says "first-order TRPO", but the authors' code is PPO's clipped objective with
that line search, and so is this. Deviations from that code: its line search has no end if the KL stays too large; here
the step is not taken after `backtracks` attempts. Its running standard deviation is taken around the mean before the
update; here it is around the batch's own mean. As in the code, a pass's KL and objective are means over its
mini-batches, each before its own update, which costs nothing. Before the first step a policy sees action 0, reward 0,
end-of-episode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import NamedTuple

import keras
import tensorflow as tf

from ..datasets.random import TaskKeys
from ..datasets.tasks import Shape
from ..datasets.trials import Trials, TrialSource
from .learner import Metrics
from .metrics import are_finite
from .networks.feedforward import Values
from .networks.gru import GRU, Weights
from .networks.operations import forward, gradient
from .networks.options import GRUOptions
from .optimizers import apply_meta_gradients, state_of
from .options import RL2Options
from .programs import program, sizes
from .rl import distributions
from .rl.minibatches import Minibatches, mean_of_each, order_of, shuffled, weighted_mean
from .rl.rollout import Rollout, Seen, encode, roll_out, trial_metrics
from .workers import ALONE, WHOLE, Share, Workers


class Batch(NamedTuple):
    """Hold the data of one iteration, `[M, N, B, ...]` for M mini-batches, or one mini-batch of them, `[N, B, ...]`."""

    inputs: tf.Tensor  # [N, B, D], the networks' inputs
    action: tf.Tensor  # [N, B] or [N, B, size]
    old: tf.Tensor  # [N, B, n], the distribution that the action comes from
    advantage: tf.Tensor  # [N, B]
    target: tf.Tensor  # [N, B], of the baseline, normalised
    keys: tf.Tensor  # [1, B, 2], of the trials
    weight: tf.Tensor  # [B], 1 for a trial and 0 for padding
    trials: tf.Tensor  # [], the number of trials of all workers


class RL2:
    """Learn from trials: `train_step` and `evaluate` play those that `source` samples."""

    def __init__(
        self,
        source: TrialSource,
        network: GRUOptions,
        optimizer: Callable[[Collection[tf.Variable]], keras.optimizers.Optimizer],
        options: RL2Options,
        precision: str = "float32",
        seed: int = 0,
        jit_compile: bool = True,
    ):
        """Build the policy, the baseline and their optimizers.

        Args:
            source: The environments.
            network: The options of both recurrent networks.
            optimizer: A function that returns a new optimizer, called once per network with the parameters that weight
                decay leaves out.
            options: The algorithm's section of the spec.
            precision: The dtype of the networks.
            seed: The seed of the initial weights.
            jit_compile: Whether XLA compiles the parts of an iteration.
        """
        self.source, self.options = source, options
        self.distribution = distributions.of(source.actions)
        inputs = source.observations.size + source.actions.size + 2
        self.policy = GRU(network, inputs, source.actions.size, precision, 2 * seed)
        self.baseline = GRU(network, inputs, 1, precision, 2 * seed + 1)
        self.dtype = self.policy.dtype
        self.parameters = dict(self.policy.parameters)
        if not source.actions.discrete:
            self.parameters["log_std"] = tf.Variable(tf.zeros(source.actions.size, self.dtype), name="log_std")
        self.return_mean = tf.Variable(tf.zeros((), self.dtype), name="return_mean")
        self.return_std = tf.Variable(tf.ones((), self.dtype), name="return_std")
        self.optimizer, self.baseline_optimizer = (optimizer(each.norm) for each in (self.policy, self.baseline))
        self.variables = state_of(self.optimizer, self.parameters, self.return_mean, self.return_std)
        self.variables += state_of(self.baseline_optimizer, self.baseline.parameters)
        self.compiled_iteration = program(self.iteration)
        self.compiled_collect = program(self.collect, jit_compile=jit_compile)
        self.compiled_improve = program(self._improve, jit_compile=jit_compile)
        self.compiled_fit_baseline = program(self._fit_baseline, jit_compile=jit_compile)
        self.compiled_evaluate = program(self._evaluate, jit_compile=jit_compile)
        compiled = functools.partial(program, jit_compile=jit_compile)  # the parts between two sums over workers
        self._compiled_play, self._compiled_values = compiled(self.play), compiled(self._values_of)
        self._compiled_policy_gradient = compiled(self.policy_gradient)
        self._compiled_baseline_gradient = compiled(self._baseline_gradient)
        self._compiled_measures = compiled(lambda batch: self.objective(self.parameters, batch)[1])

    def train_step(self, trials: Trials, share: Share = WHOLE) -> Metrics:
        """Run one iteration of playing and learning.

        Returns:
            Scalars after the iteration: loss (minus the mean of rho_t A_t), total_reward of the trials played, kl,
            entropy, baseline_loss (of the last pass), epoch_kept (from 1; 0: no pass was within the limit) and
            step_kept (the fraction of the step taken). Without a limit loss, kl and entropy are of the last pass.
        """
        if share.workers.count == 1:
            return self.compiled_iteration(trials)
        return self.iteration(trials, share.workers)

    def evaluate(self, trials: Trials) -> Metrics:
        """Return `trial_metrics` of sampled actions, as in the paper, one value per trial."""
        return self.compiled_evaluate(trials)

    def operations(self, shape: Shape | None = None) -> int:
        """Return the floating-point operations of one trial in an iteration, as `operations.py` counts them.

        They are those of playing, of `epochs` gradients of both networks, of the baseline's estimates and of the last
        KL. Back-tracking is not counted. `shape` is unused.
        """
        one, other = self.policy.layers, self.baseline.layers
        learning = self.options.epochs * (gradient(one) + gradient(other))
        forwards = (1 if self.options.kl_limit is None else 2) * forward(one) + forward(other)
        return self.source.episodes * self.source.horizon * (forwards + learning)

    def play(self, trials: Trials) -> Rollout:
        """Play with sampled actions; `recorded` holds the distributions `[N, T, n]`."""
        return roll_out(self.source, trials, Player(self))

    def _evaluate(self, trials: Trials) -> Metrics:
        rollout = roll_out(self.source, trials, Watched(self))
        return trial_metrics(rollout, rollout.recorded)

    def iteration(self, trials: Trials, workers: Workers = ALONE) -> Metrics:
        """Run one iteration, see `train_step`.

        With one worker the two networks learn at the same time, because neither needs the other's step. What is serial
        in one program fills the cores that wait in the other. With several workers the sums must keep one order, so the
        networks learn one after the other. Each worker plays its trials of each mini-batch.
        """
        if workers.count == 1:
            batch, total_reward = self.compiled_collect(trials)
            metrics, baseline_loss = self.compiled_improve(batch), self.compiled_fit_baseline(batch)
        else:
            batch, total_reward = self.collect(trials, workers)
            metrics, baseline_loss = self._improve(batch, workers), self._fit_baseline(batch, workers)
        return metrics | {"baseline_loss": baseline_loss, "total_reward": total_reward}

    def collect(self, trials: Trials, workers: Workers = ALONE) -> tuple[Batch, tf.Tensor]:
        """Play the trials; return the batch to learn from and the mean total reward."""
        parts = self.parts(trials.keys.shape[0], workers)
        if workers.count > 1:
            trials = tf.nest.map_structure(lambda each: tf.gather(each, parts.rows), trials)
        rollout = self._compiled_play(trials)
        return self.batch(rollout, trials.keys, parts), workers.total(tf.reduce_sum(rollout.reward) / parts.tasks)

    def parts(self, tasks: int, workers: Workers = ALONE) -> Minibatches:
        """Return the mini-batches of an iteration of `tasks` trials."""
        return Minibatches(tasks, min(self.options.minibatch, tasks), workers)

    def batch(self, rollout: Rollout, keys: tf.Tensor, parts: Minibatches) -> Batch:
        """Return advantages and targets in mini-batches; update the running mean and standard deviation of returns."""
        inputs = encode(self.source.observations, self.source.actions, rollout.seen, self.dtype)
        inputs, reward = parts.cut(inputs), parts.cut(tf.cast(rollout.reward, self.dtype))
        weight, trials = parts.weights(self.dtype), parts.trials(self.dtype)

        def mean_and_deviation(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            mean = parts.workers.total(weighted_mean(x, weight, trials))
            return mean, tf.sqrt(parts.workers.total(weighted_mean(tf.square(x - mean), weight, trials)))

        values = self._compiled_values(inputs) * self.return_std + self.return_mean
        advantage = advantages(reward, values, self.options.discount, self.options.gae_lambda)
        if self.options.baseline_target == "td_lambda":
            target = values + advantage
        else:
            target = discounted_sums(reward, self.options.discount)
        target = self._normalised(target, *mean_and_deviation(target))
        if self.options.standardise_advantages is not False:
            mean, deviation = mean_and_deviation(advantage)
            advantage = (advantage - mean) / (deviation + 1e-8)
        action, old, keys = parts.cut(rollout.action), parts.cut(rollout.recorded), parts.cut(keys[None])
        return Batch(inputs, action, old, advantage, target, keys, weight, trials)

    def _values_of(self, inputs: tf.Tensor) -> tf.Tensor:
        """Return the baseline's outputs `[M, N, B]`."""
        network = self.baseline.weights()
        return tf.map_fn(lambda xs: self.baseline.unroll(network, xs)[..., 0], inputs)

    def _normalised(self, target: tf.Tensor, mean: tf.Tensor, deviation: tf.Tensor) -> tf.Tensor:
        rate = tf.constant(self.options.baseline_normalisation_rate, self.dtype)
        self.return_mean.assign((1 - rate) * self.return_mean + rate * mean)
        self.return_std.assign((1 - rate) * self.return_std + rate * deviation)
        return (target - self.return_mean) / (self.return_std + 1e-8)

    def _passes(self, function: Callable[[Batch], tf.Tensor], batch: Batch, results: int) -> tf.Tensor:
        """Run all passes over the mini-batches and return the results of the last, see `mean_of_each`."""
        _, last = tf.while_loop(
            lambda number, _: number < self.options.epochs,
            lambda number, _: (number + 1, self._one_pass(function, batch, number, results)),
            (0, tf.zeros(results, self.dtype)),
            parallel_iterations=1,
            maximum_iterations=self.options.epochs,
        )
        return last

    def _one_pass(self, function: Callable[[Batch], tf.Tensor], batch: Batch, number: tf.Tensor | int, results: int):
        """Run pass `number` over the mini-batches, in an order of its own if they are shuffled."""
        if self.options.shuffle:
            taken = (batch.inputs, batch.action, batch.old, batch.advantage, batch.target)
            order = order_of(batch.keys, batch.weight, number)
            batch = Batch(*(shuffled(part, order) for part in taken), *batch[len(taken) :])
        return mean_of_each(function, batch, batch.trials, results)

    def _fit_baseline(self, batch: Batch, workers: Workers = ALONE) -> tf.Tensor:
        """Run all passes of the baseline and return the mean loss of the last."""
        return self._passes(functools.partial(self._baseline_update, workers), batch, 1)[0]

    def _baseline_update(self, workers: Workers, batch: Batch) -> tf.Tensor:
        loss, gradients = workers.total(self._compiled_baseline_gradient(batch))
        apply_meta_gradients(self.baseline_optimizer, self.baseline.parameters, gradients)
        return loss[None]

    def _baseline_gradient(self, batch: Batch) -> tuple[tf.Tensor, Values]:
        parameters = {name: tf.convert_to_tensor(value) for name, value in self.baseline.parameters.items()}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(parameters)
            predicted = self.baseline.unroll(self.baseline.weights(parameters), batch.inputs)[..., 0]
            loss = weighted_mean(self._baseline_error(predicted - batch.target), batch.weight, batch.trials)
        return loss, tape.gradient(loss, parameters)

    def _baseline_error(self, error: tf.Tensor) -> tf.Tensor:
        """Return the loss of each error of the baseline: e^2, or Huber's, e^2 / 2 up to 1 and |e| - 1 / 2 beyond."""
        if self.options.baseline_loss != "huber":
            return tf.square(error)
        return tf.where(tf.abs(error) <= 1, tf.square(error) / 2, tf.abs(error) - 0.5)

    def _policy_update(self, workers: Workers, batch: Batch) -> tf.Tensor:
        measures, gradients = workers.total(self._compiled_policy_gradient(batch))
        apply_meta_gradients(self.optimizer, self.parameters, gradients)
        return measures

    def policy_gradient(self, batch: Batch) -> tuple[tf.Tensor, Values]:
        """Return the measures of a mini-batch and the gradient of the objective.

        With several workers both are parts, to be summed over the workers.
        """
        theta = {name: tf.convert_to_tensor(value) for name, value in self.parameters.items()}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(theta)
            loss, measures = self.objective(theta, batch)
        return measures, tape.gradient(loss, theta)

    def objective(self, theta: Values, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the loss to minimise and the measures `[3]`: minus the mean of rho_t A_t, mean KL, mean entropy."""
        new = self._numbers(theta, self.policy.unroll(self.policy.weights(theta), batch.inputs))
        of, clip = self.distribution, self.options.clip
        ratio = tf.exp(of.log_probability(new, batch.action) - of.log_probability(batch.old, batch.action))
        gain = ratio * batch.advantage
        clipped = tf.clip_by_value(ratio, 1 - clip, 1 + clip) * batch.advantage
        measured = (-tf.minimum(gain, clipped), -gain, of.kl(batch.old, new), of.entropy(new))
        loss, surrogate, kl, entropy = (weighted_mean(each, batch.weight, batch.trials) for each in measured)
        return loss - self.options.entropy_bonus * entropy, tf.stack([surrogate, kl, entropy])

    def _improve(self, batch: Batch, workers: Workers = ALONE) -> Metrics:
        """Run all passes over the batch, choose between them, and search along the line to the chosen one."""
        limit, update = self.options.kl_limit, functools.partial(self._policy_update, workers)
        if limit is None:
            kept, share = tf.constant(self.options.epochs), tf.ones((), self.dtype)
            measured = self._passes(update, batch, 3)
        else:
            old = self._values()
            kept, far = self._best_pass(limit, batch, update)
            share, measured = self._line_search(limit, batch, old, far, workers)
        surrogate, kl, entropy = tf.unstack(measured)
        return {"loss": surrogate, "kl": kl, "entropy": entropy, "epoch_kept": kept, "step_kept": share}

    def _best_pass(self, limit: float, batch: Batch, update: Callable[[Batch], tf.Tensor]):
        """Run all passes; return the number of the best within the limit, and the parameters after it.

        If no pass is within the limit, the number is 0 and the parameters are the last.
        """

        def one_pass(number: tf.Tensor, kept: tf.Tensor, least: tf.Tensor, best: list[tf.Tensor]):
            surrogate, kl, _ = tf.unstack(self._one_pass(update, batch, number - 1, 3))
            better = (kl <= limit) & (surrogate < least)
            best = [tf.where(better, now, before) for now, before in zip(self._values(), best, strict=True)]
            return number + 1, tf.where(better, number, kept), tf.where(better, surrogate, least), best

        infinite = tf.constant(float("inf"), self.dtype)
        _, kept, _, best = tf.while_loop(
            lambda number, *_: number <= self.options.epochs,
            one_pass,
            (1, 0, infinite, self._values()),
            parallel_iterations=1,
            maximum_iterations=self.options.epochs,
        )
        return kept, [tf.where(kept > 0, one, last) for one, last in zip(best, self._values(), strict=True)]

    def _line_search(self, limit: float, batch: Batch, old: list[tf.Tensor], far: list[tf.Tensor], workers: Workers):
        """Go from `old` as far towards `far` as the limit allows.

        Returns:
            The fraction of the way, and the measures there.
        """

        def measures(share: tf.Tensor) -> tf.Tensor:
            for variable, start, end in zip(self.parameters.values(), old, far, strict=True):
                variable.assign(tf.where(share > 0, (1 - share) * start + share * end, start))  # `end` may be NaN
            return workers.total(self._one_pass(self._compiled_measures, batch, 0, 3))

        def attempt(number: tf.Tensor, _: tf.Tensor, __: tf.Tensor):
            shorter = tf.constant(self.options.backtrack_factor, self.dtype) ** tf.cast(number, self.dtype)
            share = tf.where(number <= self.options.backtracks, shorter, 0)
            return number + 1, share, measures(share)

        unknown = tf.constant([0.0, float("inf"), 0.0], self.dtype)
        _, share, last = tf.while_loop(
            lambda _, share, last: ~(last[1] <= limit) & (share > 0),
            attempt,
            (0, tf.ones((), self.dtype), unknown),
            parallel_iterations=1,
            maximum_iterations=self.options.backtracks + 2,
        )
        return share, last

    def _values(self) -> list[tf.Tensor]:
        return [tf.convert_to_tensor(variable) for variable in self.parameters.values()]

    def _numbers(self, theta: Values, outputs: tf.Tensor) -> tf.Tensor:
        """Return the numbers that `distributions` takes, from the network's outputs `[..., O]`."""
        if self.source.actions.discrete:
            return outputs
        return tf.concat([outputs, tf.broadcast_to(theta["log_std"], sizes(outputs))], axis=-1)


class Player:
    """Play, as a `Policy` for `roll_out`, remember h and record the distributions."""

    def __init__(self, learner: RL2):
        self.learner, self.network = learner, learner.policy
        self.weights: Weights = learner.policy.weights()

    def start(self, tasks: int) -> tf.Tensor:
        """Return h_0, which is not trained."""
        return self.network.start(tasks)

    def act(self, memory: tf.Tensor, seen: Seen, number: tf.Tensor, keys: TaskKeys):
        """Return a sampled action, the next h, and the distribution."""
        numbers, memory = self.consider(memory, seen)
        return self.learner.distribution.sample(numbers, keys), memory, numbers

    def consider(self, memory: tf.Tensor, seen: Seen) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the numbers of the distribution of actions `[T, n]`, see `distributions`, and the next h."""
        learner = self.learner
        x = encode(learner.source.observations, learner.source.actions, seen, learner.dtype)
        outputs, memory = self.network.step(self.weights, x, memory)
        return learner._numbers(learner.parameters, outputs), memory


class Watched(Player):
    """Record, as a `Player`, whether the outputs are finite, `[N, T]`."""

    def act(self, memory: tf.Tensor, seen: Seen, number: tf.Tensor, keys: TaskKeys):
        """Return a sampled action, the next h, and whether the distribution is finite."""
        action, memory, numbers = super().act(memory, seen, number, keys)
        return action, memory, are_finite(numbers)


def advantages(reward: tf.Tensor, values: tf.Tensor, discount: float, gae_lambda: float) -> tf.Tensor:
    """Return generalised advantage estimates `[M, N, B]` (Schulman et al. 2016).

    The value after the last step is 0, and ends of episodes inside a trial do not matter.
    """
    after = tf.concat([values[:, 1:], tf.zeros_like(values[:, :1])], axis=1)
    return discounted_sums(reward + discount * after - values, discount * gae_lambda)


def discounted_sums(x: tf.Tensor, factor: float) -> tf.Tensor:
    """Return s_t = x_t + factor * s_{t+1} along N of `[M, N, B]`, with s_N = 0."""
    steps = tf.transpose(x, (1, 0, 2))
    sums = tf.scan(lambda after, now: now + factor * after, steps, tf.zeros_like(steps[0]), reverse=True)
    return tf.transpose(sums, (1, 0, 2))
