"""The five works as PyTorch's users write them: the peer of `compare.py`.

Images are [N, C, H, W]; parameters carry metarun's names and values (`from_metarun` turns kernels into PyTorch's
layout). A convolution of stride 2 pads by 1 on both sides, where TensorFlow's "same" pads an even size at the end
only; turned images and kernels make the two equal, so that the same mathematics runs at PyTorch's full speed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional as F

Parameters = dict[str, torch.Tensor]


def from_metarun(parameters: dict[str, np.ndarray], flip: bool, space: int) -> Parameters:
    """Convert metarun's values to leaves in PyTorch's layout; `space` is the side of the last feature map."""
    converted = {}
    for name, value in parameters.items():
        tensor = torch.from_numpy(np.array(value))
        if name.startswith("conv"):
            tensor = tensor.permute(3, 2, 0, 1)  # [F, C, 3, 3]
            tensor = tensor.flip(2, 3) if flip else tensor
        elif name == "head/kernel":
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


def conv4(p: Parameters, x: torch.Tensor, *, stride: bool, features: str) -> torch.Tensor:
    """Return the logits of images [N, C, H, W], or their embedding where there is no head."""
    for n in range(1, 5):
        x = F.conv2d(x, p[f"conv{n}/kernel"], None, stride=2 if stride else 1, padding=1)
        x = F.batch_norm(x, None, None, p.get(f"norm{n}/scale"), p[f"norm{n}/offset"], training=True, eps=1e-3)
        x = F.relu(x)
        x = x if stride else F.max_pool2d(x, 2)
    x = x.mean((2, 3)) if features == "mean" else x.flatten(1)
    return F.linear(x, p["head/kernel"], p["head/bias"]) if "head/kernel" in p else x


def maml_step(p: Parameters, batch, network: Callable, optimizer, *, lr: float, steps: int) -> Callable[[], float]:
    """Train by a loop over the tasks with autograd.grad(create_graph=True): second order, mean over tasks."""
    support_x, support_y, query_x, query_y = batch
    adapted = [name for name in p if not name.startswith("norm")]

    def step() -> float:
        optimizer.zero_grad()
        total = 0.0
        for sx, sy, qx, qy in zip(support_x, support_y, query_x, query_y, strict=True):
            fast = dict(p)
            for _ in range(steps):
                loss = F.cross_entropy(network(fast, sx), sy)
                gradients = torch.autograd.grad(loss, [fast[name] for name in adapted], create_graph=True)
                fast |= {name: fast[name] - lr * g for name, g in zip(adapted, gradients, strict=True)}
            loss = F.cross_entropy(network(fast, qx), qy) / len(support_x)
            loss.backward()  # task by task: the least memory, and the same gradient
            total += loss.item()
        optimizer.step()
        return total

    return step


def maml_vmap_step(p: Parameters, batch, network: Callable, optimizer, *, lr: float, steps: int) -> Callable[[], float]:
    """Train on all tasks at once by torch.func.vmap, which turns their convolutions into grouped ones."""
    adapted = [name for name in p if not name.startswith("norm")]

    def support_loss(weights: Parameters, rest: Parameters, x, y):
        return F.cross_entropy(network(rest | weights, x), y)

    def task_loss(p: Parameters, sx, sy, qx, qy):
        weights = {name: p[name] for name in adapted}
        rest = {name: value for name, value in p.items() if name not in weights}
        for _ in range(steps):
            gradients = torch.func.grad(support_loss)(weights, rest, sx, sy)
            weights = {name: value - lr * gradients[name] for name, value in weights.items()}
        return F.cross_entropy(network(rest | weights, qx), qy)

    def meta_loss(p: Parameters):
        return torch.func.vmap(task_loss, in_dims=(None, 0, 0, 0, 0))(p, *batch).mean()

    def step() -> float:
        gradients, loss = torch.func.grad_and_value(meta_loss)(p)
        for name, value in p.items():
            value.grad = gradients[name]
        optimizer.step()
        return loss.item()

    return step


def reptile_step(p: Parameters, batch, network: Callable, orders, *, lr: float, fused: bool) -> Callable[[], float]:
    """Train task after task: a copy of the weights, Adam steps on mini-batches, then the step towards the mean.

    As in metarun's batched form, every task of a meta-batch starts from the same moments.
    """
    support_x, support_y, *_ = batch
    fast = {name: value.detach().clone().requires_grad_() for name, value in p.items()}
    inner = torch.optim.Adam(fast.values(), lr=lr, betas=(0.0, 0.999), eps=1e-8, fused=fused)

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
                loss = F.cross_entropy(network(fast, x[rows]), y[rows])
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


def protonet_step(p: Parameters, batch, network: Callable, optimizer) -> Callable[[], float]:
    """Train on an episode: squared Euclidean distances to the class means."""
    support_x, support_y, query_x, query_y = (part[0] for part in batch)
    way = int(support_y.max()) + 1

    def step() -> float:
        optimizer.zero_grad()
        embedded = network(p, torch.cat([support_x, query_x]))
        supports, queries = embedded[: len(support_x)], embedded[len(support_x) :]
        prototypes = supports.reshape(way, -1, supports.shape[1]).mean(1)
        loss = F.cross_entropy(-torch.cdist(queries, prototypes).square(), query_y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def matching_step(p: Parameters, batch, network: Callable, optimizer, *, temperature: float, steps: int):
    """Train on an episode with full context embeddings: nn.LSTM over the supports, an attention LSTM for queries."""
    support_x, _, query_x, query_y = (part[0] for part in batch)
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

    def step() -> float:
        optimizer.zero_grad()
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
        loss = F.cross_entropy(cosine / temperature, query_y)  # one shot: a support image is its class
        loss.backward()
        optimizer.step()
        return loss.item()

    return step
