"""The works of small networks as JAX's users write them: a peer of `compare.py`.

Everything is inside one jitted program: for sinusoids `lax.scan` over many steps with tasks drawn in each, for RL^2 an
iteration with `lax.scan` over mini-batches and over time. The last mini-batch is padded with trials of weight 0.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from works import ARMS, EPOCHS, MINIBATCH, UNITS, SinusoidWork, TrialsWork

Parameters = dict[str, jax.Array]
Arrays = dict[str, np.ndarray]
CLIP, DISCOUNT, LAMBDA = 0.1, 0.99, 0.3


class State(NamedTuple):
    """Hold parameters and Adam's moments."""

    p: Parameters
    m: Parameters
    v: Parameters
    t: jax.Array

    @classmethod
    def of(cls, p: Parameters) -> State:
        """Return the state before the first step."""
        zeros = {name: jnp.zeros_like(value) for name, value in p.items()}
        return cls(p, zeros, zeros, jnp.zeros((), jnp.int32))


def adam(state: State, gradients: Parameters, rate: float = 1e-3) -> State:
    """Return the state after a step of Adam (Kingma and Ba 2015)."""
    t = state.t + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state.m, gradients)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, state.v, gradients)
    scale = rate * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return State(jax.tree.map(lambda p, m, v: p - scale * m / (jnp.sqrt(v) + 1e-8), state.p, m, v), m, v, t)


def side(work: SinusoidWork | TrialsWork, given: Arrays) -> Callable[[int], Any]:
    """Return a function that takes so many steps."""
    key, parameters = jax.random.key(0), parameters_of(given)
    if isinstance(work, SinusoidWork):
        many = jax.jit(functools.partial(sinusoid_steps, work), static_argnums=2)
        carried: list[Any] = [State.of(parameters), key]
    else:
        many = jax.jit(functools.partial(play_or_learn, work), static_argnums=2)
        value = {name: part[:, :1] if name == "head/direction" else part[:1] if name.startswith("head") else part
                 for name, part in parameters.items()}  # fmt: skip
        carried = [(State.of(parameters), State.of(value), jnp.zeros(()), jnp.ones(())), key]

    def advance(count: int) -> None:
        *carried[:], told = many(*carried, count)
        told.block_until_ready()

    return advance


def parameters_of(given: Arrays) -> Parameters:
    """Return the weights among what is given."""
    return {name.partition("/")[2]: jnp.asarray(a) for name, a in given.items() if name.startswith("parameters/")}


# sinusoids


def mlp(p: Parameters, x: jax.Array) -> jax.Array:
    """Return the outputs of points [N, 1]."""
    for n in range(1, 3):
        x = jax.nn.relu(x @ p[f"dense{n}/kernel"] + p[f"dense{n}/bias"])
    return x @ p["head/kernel"] + p["head/bias"]


def meta_loss(p: Parameters, tasks: tuple[jax.Array, ...], lr: float) -> jax.Array:
    """Return the mean loss over tasks of MAML with one inner step, in second order."""

    def loss(p: Parameters, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((mlp(p, x) - y) ** 2)

    def task_loss(sx: jax.Array, sy: jax.Array, qx: jax.Array, qy: jax.Array) -> jax.Array:
        fast = jax.tree.map(lambda value, g: value - lr * g, p, jax.grad(loss)(p, sx, sy))
        return loss(fast, qx, qy)

    return jax.vmap(task_loss)(*tasks).mean()


def sinusoids(key: jax.Array, tasks: int, points: int) -> tuple[jax.Array, ...]:
    """Draw tasks: amplitude in [0.1, 5], phase in [0, pi], x in [-5, 5]."""
    keys = jax.random.split(key, 3)
    amplitude = jax.random.uniform(keys[0], (tasks, 1, 1), minval=0.1, maxval=5)
    phase = jax.random.uniform(keys[1], (tasks, 1, 1), maxval=math.pi)
    x = jax.random.uniform(keys[2], (tasks, 2 * points, 1), minval=-5, maxval=5)
    y = amplitude * jnp.sin(x - phase)
    return x[:, :points], y[:, :points], x[:, points:], y[:, points:]


def sinusoid_steps(work: SinusoidWork, state: State, key: jax.Array, count: int):
    """Return the state, a new key and the losses after so many steps."""
    key, own = jax.random.split(key)

    def step(state: State, key: jax.Array):
        tasks = sinusoids(key, work.tasks, work.points)
        loss, gradients = jax.value_and_grad(meta_loss)(state.p, tasks, work.inner_lr)
        return adam(state, gradients, work.optimizer.learning_rate), loss

    state, losses = lax.scan(step, state, jax.random.split(own, count))
    return state, key, losses


# RL^2


def weights(p: Parameters) -> list[jax.Array]:
    """Return the normalised matrices: of inputs [D, 3H], of states [H, 3H] and of the head [H, O]."""
    names = ("input", "recurrent", "head")
    return [p[f"{n}/direction"] * (p[f"{n}/length"] / jnp.linalg.norm(p[f"{n}/direction"], axis=0)) for n in names]


def cell(projected: jax.Array, h: jax.Array, recurrent: jax.Array) -> jax.Array:
    """Return the next h [T, H] from x W + b [T, 3H] and h."""
    x_r, x_u, x_c = jnp.split(projected, 3, axis=1)
    h_r, h_u, h_c = jnp.split(h @ recurrent, 3, axis=1)
    r, u = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_u + h_u)
    return (1 - u) * h + u * jax.nn.relu(x_c + r * h_c)


def outputs_of(p: Parameters, xs: jax.Array) -> jax.Array:
    """Return the outputs [N, T, O] of inputs [N, T, D]."""
    enter, recurrent, head = weights(p)

    def step(h: jax.Array, projected: jax.Array):
        h = cell(projected, h, recurrent)
        return h, h

    _, hs = lax.scan(step, jnp.zeros((xs.shape[1], UNITS), xs.dtype), xs @ enter + p["bias"])
    return hs @ head + p["head/bias"]


def play(work: TrialsWork, p: Parameters, key: jax.Array):
    """Return inputs, actions, rewards and logits, [N, T, ...]."""
    key, own = jax.random.split(key)
    means, one = jax.random.uniform(own, (work.trials, ARMS)), jnp.ones((work.trials, 1))
    enter, recurrent, head = weights(p)

    def step(carried: tuple[jax.Array, jax.Array], key: jax.Array):
        x, h = carried
        h = cell(x @ enter + p["bias"], h, recurrent)
        logits, (acting, paying) = h @ head + p["head/bias"], jax.random.split(key)
        action = jax.random.categorical(acting, logits)
        mean = jnp.take_along_axis(means, action[:, None], axis=1)[:, 0]
        reward = jax.random.bernoulli(paying, mean).astype(jnp.float32)
        after = jnp.concatenate([one, jax.nn.one_hot(action, ARMS), reward[:, None], one], axis=1)
        return (after, h), (x, action, reward, logits)

    first = jnp.zeros((work.trials, ARMS + 3)).at[:, jnp.array([0, 1, -1])].set(1.0)
    start = first, jnp.zeros((work.trials, UNITS))
    return lax.scan(step, start, jax.random.split(key, work.pulls))[1]


def sums(x: jax.Array, factor: float) -> jax.Array:
    """Return s_t = x_t + factor * s_{t+1} along the first axis."""
    return lax.scan(lambda s, x: ((s := x + factor * s), s), jnp.zeros_like(x[0]), x, reverse=True)[1]


def log_probability(logits: jax.Array, action: jax.Array) -> jax.Array:
    """Return log p(action)."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), action[..., None], axis=-1)[..., 0]


def play_or_learn(work: TrialsWork, carried: tuple[State, State, jax.Array, jax.Array], key: jax.Array, count: int):
    """Return what is carried, a new key and the mean total reward, after so many steps of a work of trials."""
    key, own = jax.random.split(key)

    def step(carried, key: jax.Array):
        if work.part == "play":
            return carried, play(work, carried[0].p, key)[2].sum(0).mean()
        return iteration(work, carried, key)

    carried, rewards = lax.scan(step, carried, jax.random.split(own, count))
    return carried, key, rewards


def iteration(work: TrialsWork, carried: tuple[State, State, jax.Array, jax.Array], key: jax.Array):
    """Train for one iteration; return policy, baseline, mean and deviation of returns; the reward and the KL."""
    policy, baseline, mean, std = carried
    inputs, action, reward, old = play(work, policy.p, key)
    count = -(-work.trials // MINIBATCH)

    def cut(x: jax.Array) -> jax.Array:
        """Cut [N, T, ...] into [M, N, B, ...]."""
        x = jnp.pad(x, [(0, 0), (0, count * MINIBATCH - work.trials)] + [(0, 0)] * (x.ndim - 2))
        return x.reshape(x.shape[0], count, MINIBATCH, *x.shape[2:]).swapaxes(0, 1)

    weight = cut(jnp.ones((1, work.trials)))[:, 0]  # [M, B]
    xs = cut(inputs)
    values = lax.map(lambda xs: outputs_of(baseline.p, xs)[..., 0], xs)  # [M, N, B]
    values = values.swapaxes(0, 1).reshape(work.pulls, -1)[:, : work.trials] * std + mean
    after = jnp.concatenate([values[1:], jnp.zeros_like(values[:1])])
    advantage = sums(reward + DISCOUNT * after - values, DISCOUNT * LAMBDA)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    returns = sums(reward, DISCOUNT)
    mean, std = 0.1 * mean + 0.9 * returns.mean(), 0.1 * std + 0.9 * returns.std()
    batch = xs, cut(action), cut(old), cut(advantage), cut((returns - mean) / std), weight

    def average(x: jax.Array, weight: jax.Array) -> jax.Array:
        return (x * weight).sum() / (x.shape[0] * weight.sum())

    def baseline_loss(p: Parameters, part: tuple[jax.Array, ...]) -> jax.Array:
        xs, _, _, _, target, weight = part
        return average((outputs_of(p, xs)[..., 0] - target) ** 2, weight)

    def policy_loss(p: Parameters, part: tuple[jax.Array, ...]) -> jax.Array:
        xs, action, old, advantage, _, weight = part
        ratio = jnp.exp(log_probability(outputs_of(p, xs), action) - log_probability(old, action))
        clipped = jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage
        return average(-jnp.minimum(ratio * advantage, clipped), weight)

    def learned(loss: Callable[..., jax.Array], state: State) -> State:
        def update(state: State, part: tuple[jax.Array, ...]):
            gradients = jax.tree.map(lambda g: jnp.clip(g, -40, 40), jax.grad(loss)(state.p, part))
            return adam(state, gradients), None

        def one_pass(state: State, _: None):
            return lax.scan(update, state, batch)

        return lax.scan(one_pass, state, None, EPOCHS)[0]

    baseline, policy = learned(baseline_loss, baseline), learned(policy_loss, policy)

    def divergence(part: tuple[jax.Array, ...]) -> jax.Array:
        old, new = jax.nn.log_softmax(part[2]), jax.nn.log_softmax(outputs_of(policy.p, part[0]))
        return average((jnp.exp(old) * (old - new)).sum(-1), part[-1])

    return (policy, baseline, mean, std), jnp.stack([reward.sum(0).mean(), lax.map(divergence, batch).mean()])


def results(work: SinusoidWork | TrialsWork, given: Arrays) -> Arrays:
    """Return what `compare.py` checks, in float64: two losses, or a policy's outputs and a gradient."""
    jax.config.update("jax_enable_x64", True)
    p = parameters_of(given)
    if isinstance(work, SinusoidWork):
        tasks = tuple(jnp.asarray(given[name]) for name in ("support_x", "support_y", "query_x", "query_y"))
        loss, gradients = jax.value_and_grad(meta_loss)(p, tasks, work.inner_lr)
        moved = jax.tree.map(lambda p, g: p - work.optimizer.learning_rate * g, p, gradients)
        return {"losses": np.array([loss, meta_loss(moved, tasks, work.inner_lr)])}

    def squares(p: Parameters) -> tuple[jax.Array, jax.Array]:
        outputs = outputs_of(p, jnp.asarray(given["xs"]))
        return (outputs**2).sum(), outputs

    gradients, outputs = jax.grad(squares, has_aux=True)(p)
    return {"outputs": np.asarray(outputs), "gradient": np.asarray(gradients["recurrent/direction"])}
