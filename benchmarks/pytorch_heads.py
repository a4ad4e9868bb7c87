"""A classifier and ridge regression on embeddings as PyTorch's users write them, for `pytorch_works.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

Parameters = dict[str, torch.Tensor]
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]  # torch.compile, or nothing
Step = Callable[[], float]


def descent(loss_of: Callable[[Parameters], torch.Tensor], p: Parameters, optimizer: torch.optim.Optimizer) -> Step:
    """Return a step of an optimizer down a loss."""

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_of(p)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def classifier_step(
    p: Parameters,
    x: torch.Tensor,
    y: torch.Tensor,
    network: Callable[[Parameters, torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    wrap: Wrap,
) -> Step:
    """Train a linear classifier of all classes on a mini-batch of images."""

    def loss_of(p: Parameters) -> torch.Tensor:
        return F.cross_entropy(F.linear(network(p, x), p["classes/kernel"], p["classes/bias"]), y)

    return descent(wrap(loss_of), p, optimizer)


def r2d2_step(
    p: Parameters,
    tasks: tuple[torch.Tensor, ...],
    network: Callable[[Parameters, torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    penalty: float,
    wrap: Wrap,
) -> Step:
    """Train on an episode: ridge regression in closed form, with a column of ones, differentiated through."""
    support_x, support_y, query_x, query_y = (part[0] for part in tasks)
    labels = F.one_hot(support_y).to(support_x.dtype)

    def loss_of(p: Parameters) -> torch.Tensor:
        embedded = F.pad(network(p, torch.cat([support_x, query_x])), (0, 1), value=1.0)
        supports, queries = embedded[: len(support_x)], embedded[len(support_x) :]
        examples, dimensions = supports.shape
        if examples <= dimensions:
            kernel = supports @ supports.T + penalty * examples * torch.eye(examples, dtype=supports.dtype)
            weights = supports.T @ torch.linalg.solve(kernel, labels)
        else:
            kernel = supports.T @ supports + penalty * examples * torch.eye(dimensions, dtype=supports.dtype)
            weights = torch.linalg.solve(kernel, supports.T @ labels)
        return F.cross_entropy(p["ridge/scale"] * (queries @ weights) + p["ridge/offset"], query_y)

    return descent(wrap(loss_of), p, optimizer)
