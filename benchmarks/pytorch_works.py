"""The few-shot works as PyTorch's users write them, and as fast as they can be made: a peer of `compare.py`.

Images are [N, C, H, W]; parameters carry metarun's names and values (`from_metarun` turns kernels into PyTorch's
layout). A convolution of stride 2 pads by 1 on both sides, where TensorFlow's "same" pads an even size at the end
only; turned images and kernels make the two equal, so that the same mathematics runs at PyTorch's full speed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pytorch_heads
import torch
from torch.nn import functional as F
from works import ImageWork, SinusoidWork

from metarun.algorithms.options import (
    BaselineOptions,
    MAMLOptions,
    PrototypicalNetworkOptions,
    R2D2Options,
    ReptileOptions,
)

Parameters = dict[str, torch.Tensor]
Tasks = tuple[torch.Tensor, ...]  # support x and y, query x and y
Network = Callable[[Parameters, torch.Tensor], torch.Tensor]
Step = Callable[[], float]
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]  # torch.compile, or nothing


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function as it is."""
    return function


def compiler(variant: Collection[str]) -> Wrap:
    """Return torch.compile where the variant is "compiled"."""
    return functools.partial(torch.compile, dynamic=False) if "compiled" in variant else plainly


def side(
    work: ImageWork | SinusoidWork, given: dict[str, np.ndarray], variant: Collection[str], draw: bool = True
) -> Step:
    """Return a step of a work; it returns its loss.

    Args:
        work: The work.
        given: The first tasks and weights, by name.
        variant: Words: "loop" or "vmap" over tasks; "channels last", the memory layout; "compiled" by torch.compile;
            "tuned", with fused optimizers.
        draw: Whether each step draws its sinusoids; otherwise they are those given.
    """
    values = {name.partition("/")[2]: value for name, value in given.items() if name.startswith("parameters/")}
    names, wrap, fused = ("support_x", "support_y", "query_x", "query_y"), compiler(variant), "tuned" in variant or None
    is_loop = "loop" in variant and "compiled" not in variant  # torch.compile takes torch.func.grad only
    maml = maml_step if is_loop else functools.partial(maml_functional_step, vmap="vmap" in variant, wrap=wrap)
    if isinstance(work, SinusoidWork):
        p = from_metarun(values, False, 1)
        tasks = tuple(torch.from_numpy(given[name]) for name in names)
        outer = torch_optimizer(work, p, fused)
        tasks_of = functools.partial(sinusoids, work.tasks, work.points) if draw else lambda: tasks
        return maml(p, tasks_of, mlp, outer, lr=work.inner_lr, steps=1, loss=F.mse_loss)
    p = from_metarun(values, work.stride, work.space)
    tasks = tuple(
        torch.from_numpy(given[name]).long()
        if name.endswith("y")
        else images(given[name], work.stride, "channels last" in variant)
        for name in (("x", "y") if "x" in given else names)
    )
    network = functools.partial(conv4, stride=work.stride, features=work.network.features)
    outer, options = torch_optimizer(work, p, fused), work.algorithm
    if isinstance(options, MAMLOptions):
        return maml(p, lambda: tasks, network, outer, lr=options.inner_lr, steps=options.inner_steps)
    if isinstance(options, ReptileOptions):
        make, orders = reptile_vmap_step if "vmap" in variant else reptile_step, torch.from_numpy(given["orders"])
        return make(p, tasks, network, orders.long(), lr=options.inner_lr, fused=fused, wrap=wrap)
    if isinstance(options, BaselineOptions):
        return pytorch_heads.classifier_step(p, *tasks, network, outer, wrap=wrap)
    if isinstance(options, R2D2Options):
        return pytorch_heads.r2d2_step(p, tasks, network, outer, penalty=options.penalty, wrap=wrap)
    if isinstance(options, PrototypicalNetworkOptions):
        return protonet_step(p, tasks, network, outer, wrap=wrap)
    return matching_step(p, tasks, network, outer, temperature=options.temperature, steps=5, wrap=wrap)


def torch_optimizer(work: ImageWork | SinusoidWork, p: Parameters, fused: bool | None) -> torch.optim.Optimizer:
    """Return the outer optimizer of a work."""
    make = torch.optim.SGD if work.optimizer.name == "sgd" else torch.optim.Adam
    return make(p.values(), work.optimizer.learning_rate, fused=fused)


def from_metarun(parameters: dict[str, np.ndarray], flip: bool, space: int) -> Parameters:
    """Convert metarun's values to leaves in PyTorch's layout; `space` is the side of the last feature map."""
    converted = {}
    for name, value in parameters.items():
        tensor = torch.from_numpy(np.array(value))
        if name.startswith("conv") and name.endswith("kernel"):
            tensor = tensor.permute(3, 2, 0, 1)  # [F, C, 3, 3]
            tensor = tensor.flip(2, 3) if flip else tensor
        elif name.startswith("dense") and name.endswith("kernel"):
            tensor = tensor.T
        elif name in ("head/kernel", "classes/kernel"):
            tensor = tensor.reshape(space, space, -1, tensor.shape[1])
            tensor = tensor.flip(0, 1) if flip else tensor
            tensor = tensor.permute(3, 2, 0, 1).reshape(tensor.shape[3], -1)  # [outputs, C * H * W]
        converted[name] = tensor.contiguous().requires_grad_()
    return converted


def images(array: np.ndarray, flip: bool, channels_last: bool) -> torch.Tensor:
    """Convert images [..., H, W, C] to [..., C, H, W]."""
    tensor = torch.from_numpy(array).movedim(-1, -3)
    tensor = tensor.flip(-2, -1) if flip else tensor
    return _laid_out(tensor, channels_last)


def _laid_out(tensor: torch.Tensor, channels_last: bool) -> torch.Tensor:
    if not channels_last:
        return tensor.contiguous()
    flat = tensor.flatten(0, -4).contiguous(memory_format=torch.channels_last)
    return flat.reshape(tensor.shape)


def sinusoids(tasks: int, points: int) -> Tasks:
    """Draw tasks: amplitude in [0.1, 5], phase in [0, pi], x in [-5, 5]."""
    amplitude, phase = 0.1 + 4.9 * torch.rand(tasks, 1, 1), math.pi * torch.rand(tasks, 1, 1)
    x = 10 * torch.rand(tasks, 2 * points, 1) - 5
    y = amplitude * torch.sin(x - phase)
    return x[:, :points], y[:, :points], x[:, points:], y[:, points:]


def mlp(p: Parameters, x: torch.Tensor) -> torch.Tensor:
    """Return the outputs of points [N, 1]."""
    for n in range(1, 3):
        x = F.relu(F.linear(x, p[f"dense{n}/kernel"], p[f"dense{n}/bias"]))
    return F.linear(x, p["head/kernel"], p["head/bias"])


def conv4(p: Parameters, x: torch.Tensor, *, stride: bool, features: str) -> torch.Tensor:
    """Return the logits of images [N, C, H, W], or their embedding where there is no head."""
    for n in range(1, 5):
        x = F.conv2d(x, p[f"conv{n}/kernel"], None, stride=2 if stride else 1, padding=1)
        x = F.batch_norm(x, None, None, p.get(f"norm{n}/scale"), p[f"norm{n}/offset"], training=True, eps=1e-3)
        x = F.relu(x)
        x = x if stride else F.max_pool2d(x, 2)
    x = x.mean((2, 3)) if features == "mean" else x.flatten(1)
    return F.linear(x, p["head/kernel"], p["head/bias"]) if "head/kernel" in p else x


def maml_step(
    p: Parameters,
    draw: Callable[[], Tasks],
    network: Network,
    optimizer: torch.optim.Optimizer,
    *,
    lr: float,
    steps: int,
    loss: Callable[..., torch.Tensor] = F.cross_entropy,
) -> Step:
    """Train by a loop over the tasks with autograd.grad(create_graph=True): second order, mean over tasks."""
    adapted = [name for name in p if not name.startswith("norm")]

    def step() -> float:
        optimizer.zero_grad()
        tasks, total = draw(), 0.0
        for sx, sy, qx, qy in zip(*tasks, strict=True):
            fast = dict(p)
            for _ in range(steps):
                inner = loss(network(fast, sx), sy)
                gradients = torch.autograd.grad(inner, [fast[name] for name in adapted], create_graph=True)
                fast |= {name: fast[name] - lr * g for name, g in zip(adapted, gradients, strict=True)}
            outer = loss(network(fast, qx), qy) / len(tasks[0])
            outer.backward()  # task by task: the least memory, and the same gradient
            total += outer.item()
        optimizer.step()
        return total

    return step


def maml_functional_step(
    p: Parameters,
    draw: Callable[[], Tasks],
    network: Network,
    optimizer: torch.optim.Optimizer,
    *,
    lr: float,
    steps: int,
    loss: Callable[..., torch.Tensor] = F.cross_entropy,
    vmap: bool = True,
    wrap: Wrap = plainly,
) -> Step:
    """Train by torch.func.grad, in a loop over the tasks or on all at once by vmap, which groups their convolutions."""
    adapted = [name for name in p if not name.startswith("norm")]

    def support_loss(weights: Parameters, rest: Parameters, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return loss(network(rest | weights, x), y)

    def task_loss(p: Parameters, sx: torch.Tensor, sy: torch.Tensor, qx: torch.Tensor, qy: torch.Tensor):
        weights = {name: p[name] for name in adapted}
        rest = {name: value for name, value in p.items() if name not in weights}
        for _ in range(steps):
            gradients = torch.func.grad(support_loss)(weights, rest, sx, sy)
            weights = {name: value - lr * gradients[name] for name, value in weights.items()}
        return loss(network(rest | weights, qx), qy)

    def meta_loss(p: Parameters, *tasks: torch.Tensor) -> torch.Tensor:
        return torch.func.vmap(task_loss, in_dims=(None, 0, 0, 0, 0))(p, *tasks).mean()

    gradient = wrap(torch.func.grad_and_value(meta_loss if vmap else task_loss))

    def step() -> float:
        tasks = draw()
        values = {name: value.detach() for name, value in p.items()}  # or PyTorch would record this gradient's graph
        each = [gradient(values, *part) for part in ([tasks] if vmap else zip(*tasks, strict=True))]
        for name, value in p.items():
            value.grad = torch.stack([gradients[name] for gradients, _ in each]).mean(0)
        optimizer.step()
        return sum(value.item() for _, value in each) / len(each)

    return step


def reptile_step(
    p: Parameters,
    tasks: Tasks,
    network: Network,
    orders: torch.Tensor,
    *,
    lr: float,
    fused: bool | None,
    wrap: Wrap = plainly,
) -> Step:
    """Train task after task: a copy of the weights, Adam steps on mini-batches, then the step towards the mean.

    As in metarun's batched form, every task of a meta-batch starts from the same moments.
    """
    support_x, support_y, *_ = tasks
    fast = {name: value.detach().clone().requires_grad_() for name, value in p.items()}
    inner = torch.optim.Adam(fast.values(), lr=lr, betas=(0.0, 0.999), eps=1e-8, fused=fused)
    loss_of = wrap(lambda fast, x, y: F.cross_entropy(network(fast, x), y))

    def step() -> float:
        first = 0.0
        moved = {name: torch.zeros_like(value) for name, value in p.items()}
        before = {value: {k: v.clone() for k, v in state.items()} for value, state in inner.state.items()}
        for x, y, order in zip(support_x, support_y, orders, strict=True):
            inner.state.clear()
            inner.state.update({value: {k: v.clone() for k, v in state.items()} for value, state in before.items()})
            with torch.no_grad():
                for name, value in fast.items():
                    value.copy_(p[name])
            for number, rows in enumerate(order):
                inner.zero_grad()
                loss = loss_of(fast, x[rows], y[rows])
                loss.backward()
                inner.step()
                first += loss.item() / len(support_x) if number == 0 else 0.0
            with torch.no_grad():
                for name, value in moved.items():
                    value.add_(fast[name] - p[name], alpha=1 / len(support_x))
        with torch.no_grad():
            for name, value in p.items():
                value.add_(moved[name])
        return first

    return step


def reptile_vmap_step(
    p: Parameters,
    tasks: Tasks,
    network: Network,
    orders: torch.Tensor,
    *,
    lr: float,
    fused: bool | None,
    wrap: Wrap = plainly,
) -> Step:
    """Train all tasks at once: one Adam of their stacked weights, which starts from the moments of the last task."""
    support_x, support_y, *_ = tasks
    count, rows_of = len(support_x), torch.arange(len(support_x))[:, None]
    fast = {name: value.detach().repeat(count, *[1] * value.dim()).requires_grad_() for name, value in p.items()}
    inner = torch.optim.Adam(fast.values(), lr=lr, betas=(0.0, 0.999), eps=1e-8, fused=fused)
    losses_of = wrap(torch.func.vmap(lambda fast, x, y: F.cross_entropy(network(fast, x), y)))

    def step() -> float:
        first = 0.0
        with torch.no_grad():
            for name, value in fast.items():
                value.copy_(p[name].expand_as(value))
            for state in inner.state.values():
                for moment in (state["exp_avg"], state["exp_avg_sq"]):
                    moment.copy_(moment[-1].clone().expand_as(moment))
        for number in range(orders.shape[1]):
            rows = orders[:, number]  # [T, size]
            inner.zero_grad()
            losses = losses_of(fast, support_x[rows_of, rows], support_y[rows_of, rows])
            losses.sum().backward()
            inner.step()
            first += losses.mean().item() if number == 0 else 0.0
        with torch.no_grad():
            for name, value in p.items():
                value.copy_(fast[name].mean(0))
        return first

    return step


def protonet_step(
    p: Parameters, tasks: Tasks, network: Network, optimizer: torch.optim.Optimizer, *, wrap: Wrap = plainly
) -> Step:
    """Train on an episode: squared Euclidean distances to the class means."""
    support_x, support_y, query_x, query_y = (part[0] for part in tasks)
    way = int(support_y.max()) + 1

    def loss_of(p: Parameters) -> torch.Tensor:
        embedded = network(p, torch.cat([support_x, query_x]))
        supports, queries = embedded[: len(support_x)], embedded[len(support_x) :]
        prototypes = supports.reshape(way, -1, supports.shape[1]).mean(1)
        return F.cross_entropy(-torch.cdist(queries, prototypes).square(), query_y)

    return pytorch_heads.descent(wrap(loss_of), p, optimizer)


def matching_step(
    p: Parameters,
    tasks: Tasks,
    network: Network,
    optimizer: torch.optim.Optimizer,
    *,
    temperature: float,
    steps: int,
    wrap: Wrap = plainly,
) -> Step:
    """Train on an episode with full context embeddings: nn.LSTM over the supports, an attention LSTM for queries."""
    support_x, _, query_x, query_y = (part[0] for part in tasks)
    width = p["context/forward/recurrent"].shape[0]
    lstm = torch.nn.LSTM(width, width, bidirectional=True, dtype=support_x.dtype)
    with torch.no_grad():
        for suffix, name in (("", "forward"), ("_reverse", "backward")):
            getattr(lstm, f"weight_ih_l0{suffix}").copy_(p[f"context/{name}/kernel"].T)
            getattr(lstm, f"weight_hh_l0{suffix}").copy_(p[f"context/{name}/recurrent"].T)
            getattr(lstm, f"bias_ih_l0{suffix}").copy_(p[f"context/{name}/bias"])
            getattr(lstm, f"bias_hh_l0{suffix}").zero_()
    one_bias = [value for name, value in lstm.named_parameters() if not name.startswith("bias_hh")]
    optimizer.add_param_group({"params": one_bias})

    def loss_of(p: Parameters) -> torch.Tensor:
        embedded = network(p, torch.cat([support_x, query_x]))
        supports, queries = embedded[: len(support_x)], embedded[len(support_x) :]
        both, _ = lstm(supports[:, None])
        supports = both[:, 0, :width] + both[:, 0, width:] + supports
        hidden = state = torch.zeros_like(queries)
        for _ in range(steps):
            read = torch.softmax(hidden @ supports.T, -1) @ supports
            gates = queries @ p["context/attention/kernel"] + p["context/attention/bias"]
            gates = gates + torch.cat([hidden, read], -1) @ p["context/attention/recurrent"]
            enter, forget, candidate, leave = gates.chunk(4, -1)
            state = torch.sigmoid(forget) * state + torch.sigmoid(enter) * torch.tanh(candidate)
            hidden = torch.sigmoid(leave) * torch.tanh(state) + queries
        cosine = F.normalize(hidden, dim=-1) @ F.normalize(supports, dim=-1).T
        return F.cross_entropy(cosine / temperature, query_y)  # one shot: a support image is its class

    return pytorch_heads.descent(wrap(loss_of), p, optimizer)
