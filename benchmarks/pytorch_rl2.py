"""RL^2 as PyTorch's users write it: a peer of `compare.py` on bandits.

An iteration plays all trials, computes advantages, makes five passes of PPO and five of the baseline over mini-batches
of 128 trials, with weight normalisation, Adam, and the KL at the end. nn.GRU has no ReLU candidate, so that PyTorch's
users write the cell and loop over it; the bandits are tensors there too.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from pytorch_works import Wrap, compiler, plainly
from torch.distributions import Categorical
from torch.nn import functional as F
from works import ARMS, EPOCHS, MINIBATCH, UNITS, TrialsWork

CLIP, DISCOUNT, LAMBDA = 0.1, 0.99, 0.3


class GRU(torch.nn.Module):
    """Apply a cell with a ReLU candidate, weight normalisation and a linear head."""

    def __init__(self, inputs: int, outputs: int, units: int = UNITS, at_once: bool = False, wrap: Wrap = plainly):
        """Create the parameters.

        Args:
            inputs: The number D of inputs.
            outputs: The number O of outputs.
            units: The width of the state.
            at_once: Whether `forward` projects the inputs and states of all steps in one product each.
            wrap: What compiles the cell.
        """
        super().__init__()
        self.units, self.at_once, self.cell = units, at_once, wrap(cell)
        self.input_v = torch.nn.Parameter(torch.nn.init.xavier_uniform_(torch.empty(3 * units, inputs)))
        gates = [torch.nn.init.orthogonal_(torch.empty(units, units)) for _ in range(3)]
        self.recurrent_v = torch.nn.Parameter(torch.cat(gates))
        self.head_v = torch.nn.Parameter(torch.nn.init.xavier_uniform_(torch.empty(outputs, units)))
        for name in ("input", "recurrent", "head"):
            length = getattr(self, f"{name}_v").detach().norm(dim=1)
            setattr(self, f"{name}_g", torch.nn.Parameter(length))
        self.bias = torch.nn.Parameter(torch.zeros(3 * units))
        self.head_bias = torch.nn.Parameter(torch.zeros(outputs))

    def weights(self) -> list[torch.Tensor]:
        """Return the normalised weights, once for a pass over the steps."""
        return [F.normalize(getattr(self, f"{n}_v")) * getattr(self, f"{n}_g")[:, None] for n in NAMES]

    def step(self, weights: list[torch.Tensor], x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs and h after one step."""
        h = self.cell(F.linear(x, weights[0], self.bias), h, weights[1])
        return F.linear(h, weights[2], self.head_bias), h

    def forward(self, xs: torch.Tensor) -> torch.Tensor:
        """Return the outputs [N, T, O] of inputs [N, T, D]."""
        weights, h, outputs = self.weights(), xs.new_zeros(xs.shape[1], self.units), []
        if self.at_once:
            for projected in F.linear(xs, weights[0], self.bias):
                h = self.cell(projected, h, weights[1])
                outputs.append(h)
            return F.linear(torch.stack(outputs), weights[2], self.head_bias)
        for x in xs:
            out, h = self.step(weights, x, h)
            outputs.append(out)
        return torch.stack(outputs)


NAMES = ("input", "recurrent", "head")


def cell(projected: torch.Tensor, h: torch.Tensor, recurrent: torch.Tensor) -> torch.Tensor:
    """Return the next h from x W + b [T, 3H], h [T, H] and U [3H, H]."""
    x_r, x_u, x_c = projected.chunk(3, dim=1)
    h_r, h_u, h_c = F.linear(h, recurrent).chunk(3, dim=1)
    r, u = torch.sigmoid(x_r + h_r), torch.sigmoid(x_u + h_u)
    return (1 - u) * h + u * torch.relu(x_c + r * h_c)


class PyTorch:
    """Run PyTorch's side of a work of trials: `step()` returns the mean total reward."""

    def __init__(self, work: TrialsWork, variant: Collection[str]):
        """Build policy and baseline.

        Args:
            work: The work.
            variant: Words: "by step" or "at once", how inputs are projected; "compiled", the cell by torch.compile;
                "tuned", with fused optimizers.
        """
        self.pulls, self.trials = work.pulls, work.trials
        self.step = self.iteration if work.part == "iteration" else lambda: self.play()[2].sum(0).mean().item()
        self.policy, self.baseline = (
            GRU(ARMS + 3, outputs, at_once="at once" in variant, wrap=compiler(variant)) for outputs in (ARMS, 1)
        )
        self.optimizers = [
            torch.optim.Adam(network.parameters(), 1e-3, fused="tuned" in variant or None)
            for network in (self.policy, self.baseline)
        ]
        self.mean, self.std = 0.0, 1.0

    @torch.no_grad()
    def play(self):
        """Return inputs, actions, rewards and old logits, [N, T, ...]."""
        p = torch.rand(self.trials, ARMS)
        x = torch.zeros(self.trials, ARMS + 3)
        x[:, [0, 1, -1]] = 1.0
        h, weights, happened = torch.zeros(self.trials, UNITS), self.policy.weights(), []
        for _ in range(self.pulls):
            logits, h = self.policy.step(weights, x, h)
            action = Categorical(logits=logits).sample()
            reward = torch.bernoulli(p.gather(1, action[:, None]))[:, 0]
            happened.append((x, action, reward, logits))
            one = torch.ones(self.trials, 1)
            x = torch.cat([one, F.one_hot(action, ARMS).float(), reward[:, None], one], dim=1)
        return [torch.stack(parts) for parts in zip(*happened, strict=True)]

    def iteration(self) -> float:
        """Train for one iteration and return the mean total reward."""
        inputs, actions, rewards, old = self.play()
        parts = [slice(start, start + MINIBATCH) for start in range(0, self.trials, MINIBATCH)]
        with torch.no_grad():
            values = torch.cat([self.baseline(inputs[:, part])[..., 0] for part in parts], dim=1)
        values = values * self.std + self.mean
        returns, advantages = self.sums(rewards, values)
        self.mean = 0.1 * self.mean + 0.9 * returns.mean().item()
        self.std = 0.1 * self.std + 0.9 * returns.std().item()
        targets = (returns - self.mean) / self.std
        for _ in range(EPOCHS):
            for part in parts:
                self.update(1, F.mse_loss(self.baseline(inputs[:, part])[..., 0], targets[:, part]))
        old_log = Categorical(logits=old).log_prob(actions)
        for _ in range(EPOCHS):
            for part in parts:
                log = Categorical(logits=self.policy(inputs[:, part])).log_prob(actions[:, part])
                ratio, gain = (log - old_log[:, part]).exp(), advantages[:, part]
                self.update(0, -torch.min(ratio * gain, ratio.clamp(1 - CLIP, 1 + CLIP) * gain).mean())
        with torch.no_grad():
            for part in parts:
                new = Categorical(logits=self.policy(inputs[:, part]))
                torch.distributions.kl_divergence(Categorical(logits=old[:, part]), new).mean().item()
        return rewards.sum(0).mean().item()

    def sums(self, rewards: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the returns and the standardised advantages."""
        returns, advantages = torch.zeros_like(rewards), torch.zeros_like(rewards)
        total = advantage = after = torch.zeros(self.trials)
        for t in reversed(range(self.pulls)):
            total = rewards[t] + DISCOUNT * total
            advantage = rewards[t] + DISCOUNT * after - values[t] + DISCOUNT * LAMBDA * advantage
            returns[t], advantages[t], after = total, advantage, values[t]
        return returns, (advantages - advantages.mean()) / (advantages.std() + 1e-8)

    def update(self, which: int, loss: torch.Tensor) -> None:
        """Take a step of Adam."""
        optimizer, network = self.optimizers[which], (self.policy, self.baseline)[which]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(network.parameters(), 40.0)
        optimizer.step()


def results(given: dict[str, np.ndarray], variant: Collection[str]) -> dict[str, np.ndarray]:
    """Return a policy's outputs, and the gradient of their squares for the recurrent matrix."""
    policy = GRU(ARMS + 3, ARMS, at_once="at once" in variant, wrap=compiler(variant)).double()
    with torch.no_grad():
        for name in NAMES:
            getattr(policy, f"{name}_v").copy_(torch.from_numpy(given[f"parameters/{name}/direction"].T.copy()))
            getattr(policy, f"{name}_g").copy_(torch.from_numpy(given[f"parameters/{name}/length"]))
    outputs = policy(torch.from_numpy(given["xs"]))
    (outputs**2).sum().backward()
    return {"outputs": outputs.detach().numpy(), "gradient": policy.recurrent_v.grad.numpy().T}
