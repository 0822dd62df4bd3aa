"""One network's training: steps as a CUDA graph, a learning rate that falls, an average of the weights, resumption.

Deterministic from its seed as far as the device allows: steps are counted, not timed, and the saved state
includes the random state, so an interrupted training resumes as if it had not been interrupted.
"""

import functools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

LOG = "log.jsonl"
Loss = Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Recipe:
    """How one part is trained."""

    name: str
    steps: int
    batch: int
    rate: float  # the highest learning rate
    decay: float = 0.01  # of weights
    average: float = 0.999  # how much of the average of weights a step keeps
    warm_up: int = 300  # steps until the highest rate
    clip: float = 1.0  # of the gradient's norm


class Trainer:
    """Trains `modules` on what `losses` return in turn: scalars on the device, made from static shapes."""

    def __init__(
        self, recipe: Recipe, modules: Sequence[torch.nn.Module], losses: Sequence[Loss], folder: Path
    ) -> None:
        self.recipe, self._losses, self._folder = recipe, losses, folder
        self._parameters = [one for module in modules for one in module.parameters() if one.requires_grad]
        self._device = self._parameters[0].device
        self._on_gpu = self._device.type == "cuda"
        self._rate = torch.tensor(0.0, device=self._device)
        kept: dict[str, Any] = {"fused": True, "capturable": True} if self._on_gpu else {}
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=self._rate if self._on_gpu else 0.0,
            betas=(0.9, 0.98),
            weight_decay=recipe.decay,
            **kept,
        )
        self._average = [one.detach().clone() for one in self._parameters]
        self._file = folder / f"{recipe.name}.training.pt"

    def run(self, every: int = 1000, save_every: float = 60.0) -> None:
        """Train to the last step, from where an earlier run saved; then put the average into the modules."""
        step = self._resume()
        advance = self._captured(step) if self._on_gpu and step < self.recipe.steps else self._eager()
        total = torch.zeros((), device=self._device)
        began = saved = time.monotonic()
        since = step
        while step < self.recipe.steps:
            self._set_rate(step)
            total += advance[self._losses[step % len(self._losses)]]()
            step += 1
            if step % every == 0 or step == self.recipe.steps or step == 1:
                loss, now = total.item() / (step - since), time.monotonic()
                self._log(step, loss, (now - began) / (step - since))
                if not math.isfinite(loss):
                    raise FloatingPointError(f"{self.recipe.name}: the loss is {loss} at step {step}")
                total.zero_()
                began, since = now, step
                if now - saved > save_every or step == self.recipe.steps:
                    self._save(step)
                    saved = now
        with torch.no_grad():
            for parameter, average in zip(self._parameters, self._average, strict=True):
                parameter.copy_(average)

    def _eager(self) -> dict[Loss, Loss]:
        return {loss: functools.partial(self._step, loss) for loss in self._losses}

    def _step(self, of: Loss) -> torch.Tensor:
        self._optimizer.zero_grad(set_to_none=True)
        loss = of()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, self.recipe.clip, foreach=True)
        self._optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self._average, [one.detach() for one in self._parameters], 1 - self.recipe.average)
        return loss.detach()

    def _captured(self, step: int) -> dict[Loss, Loss]:
        """For each loss, a step as a CUDA graph. Steps that warm it up are undone."""
        before = self._state(step)
        captured = {loss: self._graph(loss) for loss in dict.fromkeys(self._losses)}
        self._restore(before)
        return captured

    def _graph(self, of: Loss) -> Loss:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._step(of)
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            loss = self._step(of)

        def advance() -> torch.Tensor:
            graph.replay()
            return loss

        return advance

    def _set_rate(self, step: int) -> None:
        recipe = self.recipe
        falling = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        rate = recipe.rate * min(1.0, (step + 1) / recipe.warm_up) * falling
        if self._on_gpu:
            self._rate.fill_(rate)
        else:
            for group in self._optimizer.param_groups:
                group["lr"] = rate

    def _state(self, step: int) -> dict[str, Any]:
        """Everything that the next step depends on, as copies."""
        return {
            "recipe": vars(self.recipe),
            "step": step,
            "weights": [one.detach().clone() for one in self._parameters],
            "average": [one.clone() for one in self._average],
            "moments": [
                {name: value.clone() for name, value in self._optimizer.state[one].items()} for one in self._parameters
            ],
            "random": torch.cuda.get_rng_state() if self._on_gpu else torch.get_rng_state(),
        }

    @torch.no_grad()
    def _restore(self, state: dict[str, Any]) -> None:
        for mine, stored in ((self._parameters, state["weights"]), (self._average, state["average"])):
            for one, other in zip(mine, stored, strict=True):
                one.copy_(other)
        for one, moments in zip(self._parameters, state["moments"], strict=True):
            for name, value in self._optimizer.state[one].items():
                value.copy_(moments[name]) if name in moments else value.zero_()
        if self._on_gpu:
            torch.cuda.set_rng_state(state["random"].cpu())
        else:
            torch.set_rng_state(state["random"].cpu())

    def _resume(self) -> int:
        """The step to resume from, 0 without a saved training. Raises ValueError for one of another recipe."""
        if not self._file.exists():
            return 0
        state = torch.load(self._file, map_location=self._device, weights_only=True)
        if state["recipe"] != vars(self.recipe):
            raise ValueError(f"{self._file} is of another recipe: choose another folder or delete it")
        if any(state["moments"]):
            self._rate.zero_()
            self._make_moments()
        self._restore(state)
        self._note(f"{self.recipe.name}: goes on from step {state['step']:,}")
        return int(state["step"])

    def _make_moments(self) -> None:
        """Let the optimizer make its state, which is filled afterwards: a step with a rate of 0."""
        for one in self._parameters:
            one.grad = torch.zeros_like(one)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def _save(self, step: int) -> None:
        beside = self._file.with_suffix(".part")
        torch.save(self._state(step), beside)
        beside.replace(self._file)

    def _log(self, step: int, loss: float, seconds: float) -> None:
        record = {"part": self.recipe.name, "step": step, "loss": loss, "seconds_per_step": seconds}
        with (self._folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        left = (self.recipe.steps - step) * seconds
        progress = f"step {step:,} of {self.recipe.steps:,}, loss {loss:.4f}, {1e3 * seconds:.1f} ms a step"
        self._note(f"{self.recipe.name}: {progress}, {left:.0f} s left")

    def _note(self, text: str) -> None:
        print(text, flush=True)
