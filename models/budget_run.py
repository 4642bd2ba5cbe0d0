"""Trains a small network for so many minutes: moving average of the weights, cosine schedule over the time, resumable.

Knows no network and no data; a task says what a batch costs. `landmark_training.py` and `finder_training.py` are tasks.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from . import settings

N = TypeVar("N", bound=nn.Module)


@dataclass(frozen=True)
class Budget:
    data: tuple[Path, ...] = settings.setting((), "folders of shards written by vlfau-synthesize")
    out: Path | None = settings.setting(None, "folder for the checkpoint and the figures")  # noqa: RUF009
    minutes: float = settings.setting(25.0, "training time; a run that is started again uses what is left of it")
    steps: int = settings.setting(0, "batches after which the run ends even if time is left; 0 for no such end")
    start: Path | None = settings.setting(None, "checkpoint of another run whose weights this one starts from")  # noqa: RUF009
    export: Path | None = settings.setting(None, "folder that gets the .onnx file and its .json card in the end")  # noqa: RUF009
    batch: int = settings.setting(64, "crops or scenes in a batch")
    learning_rate: float = settings.setting(2e-3, "peak of the cosine schedule")
    validation: int = settings.setting(10_000, "held-out crops or scenes to validate on")
    seed: int = settings.setting(0, "seed of everything random")
    threads: int = settings.setting(1, "cores to use")
    limit: int = settings.setting(40_000, "pictures held in memory (77 kB each)")
    device: str = settings.setting("cpu", "torch device")


class Run(Generic[N]):
    """One training run; `average` is what gets shipped."""

    def __init__(self, network: N, budget: Budget, checkpoint: Path) -> None:
        self.budget, self.path = budget, checkpoint
        self.network: N = network.to(budget.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average: N = copy.deepcopy(self.network).eval()
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=budget.learning_rate, weight_decay=1e-2)
        self.seconds, self.steps = 0.0, 0
        if checkpoint.exists():
            self._load()
            print(f"going on from {checkpoint}: {self.steps} steps, {self.seconds / 60:.1f} minutes", flush=True)
        elif budget.start is not None:
            weights = torch.load(budget.start, map_location=budget.device, weights_only=True)["average"]
            self.network.load_state_dict(weights)
            self.average.load_state_dict(weights)

    def _load(self) -> None:
        state = torch.load(self.path, map_location=self.budget.device, weights_only=True)
        for name in ("network", "average", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.seconds, self.steps = float(state["seconds"]), int(state["steps"])

    @property
    def done(self) -> float:
        """The share of the budget that is used up, 0..1."""
        by_steps = self.steps / self.budget.steps if self.budget.steps else 0.0
        return min(1.0, max(by_steps, self.seconds / (self.budget.minutes * 60)))

    def save(self) -> None:
        state: dict[str, Any] = {n: getattr(self, n).state_dict() for n in ("network", "average", "optimiser")}
        torch.save(state | {"seconds": self.seconds, "steps": self.steps}, self.path.with_suffix(".part"))
        os.replace(self.path.with_suffix(".part"), self.path)

    def train(self, cost: Callable[[N, np.random.Generator], dict[str, Tensor]], refresh: Callable[[], int]) -> None:
        """`cost` gives the parts of one batch's loss; `refresh` takes in new shards and counts the pictures."""
        random = np.random.default_rng((self.budget.seed, self.steps))
        pictures = refresh()
        last = shown = time.monotonic()
        sums: dict[str, float] = {}
        first = self.steps
        while self.done < 1:
            for name, value in self._step(cost, random).items():
                sums[name] = sums.get(name, 0.0) + value
            now = time.monotonic()
            self.seconds, last = self.seconds + now - last, now
            if now - shown > 60:
                parts = ", ".join(f"{name} {value / (self.steps - first):.4f}" for name, value in sums.items())
                print(f"{self.seconds / 60:.1f} min, step {self.steps}, {pictures} pictures, {parts}", flush=True)
                self.save()
                pictures = refresh()
                sums, first, last = {}, self.steps, time.monotonic()
                shown = last
        self.save()

    def _step(
        self, cost: Callable[[N, np.random.Generator], dict[str, Tensor]], random: np.random.Generator
    ) -> dict[str, float]:
        rate = (
            self.budget.learning_rate
            * min(1.0, (self.steps + 1) / 200)
            * (0.5 + 0.5 * np.cos(np.pi * self.done) + 0.005)
        )
        for group in self.optimiser.param_groups:
            group["lr"] = float(rate)  # a numpy number could not be loaded again
        self.network.train()
        losses = cost(self.network, random)
        self.optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.steps += 1
        keep = min(0.999, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for mine, its in zip(self.average.state_dict().values(), self.network.state_dict().values()):
                if mine.dtype.is_floating_point:
                    mine.lerp_(its, 1 - keep)
                else:
                    mine.copy_(its)
        return {name: float(value.detach()) for name, value in losses.items()}


def export(
    network: nn.Module,
    path: Path,
    example: Tensor,
    names: tuple[list[str], list[str]],
    shapes: Any,
    card: dict[str, Any],
) -> Path:
    """The .onnx file (weights in half precision, arithmetic in single) and, beside it, its card with the sha256."""
    import onnx

    path.parent.mkdir(parents=True, exist_ok=True)
    program = torch.onnx.export(
        copy.deepcopy(network).cpu().eval(),
        (example,),
        input_names=names[0],
        output_names=names[1],
        dynamic_shapes=shapes,
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise RuntimeError("torch.onnx.export gave nothing back")
    onnx.save(_halved(program.model_proto), str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(card | {"sha256": digest}, indent=2) + "\n", encoding="utf-8")
    return path


def _halved(model: Any) -> Any:
    """Large weights stored in half precision behind a cast: half the file, the same arithmetic."""
    import onnx
    from onnx import numpy_helper

    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < 1024:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name + "_half"))
        casts.append(onnx.helper.make_node("Cast", [name + "_half"], [name], to=onnx.TensorProto.FLOAT))
    for node in reversed(casts):
        model.graph.node.insert(0, node)
    del model.graph.value_info[:]
    return model


def card_of(run: Run[Any], name: str, threshold: float, figures: dict[str, float], pictures: int) -> dict[str, Any]:
    """What is known about the trained file, for `models/embedded` and the bundle's provenance."""
    budget = run.budget
    return {
        "name": name,
        "threshold": round(threshold, 3),
        "parameters": sum(p.numel() for p in run.network.parameters()),
        "data": f"{pictures} renders of 3-D heads (vlfau-synthesize), no picture of a real face",
        "recipe": {
            "minutes": budget.minutes,
            "steps": run.steps,
            "batch": budget.batch,
            "learning_rate": budget.learning_rate,
            "seed": budget.seed,
            "started_from": budget.start.name if budget.start else None,
        },
        "validation_on_unseen_synthetic_identities": {key: round(value, 4) for key, value in figures.items()},
        "licence": "MIT",
    }
