"""Trains a small network for a given time: moving average of the weights, cosine schedule over the time, resumable.

A `Task` defines the network, its loss and its exported file; `landmarks.py` and `finder.py` are tasks.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from .. import settings
from ..errors import UserError
from ..training.checkpoint import Checkpoints
from ..training.position import pack, unpack
from ..training.schedule import cosine, update_mean, warmup
from .crops import RenderedCrops

N = TypeVar("N", bound=nn.Module)
Cost = Callable[[N, np.random.Generator], dict[str, Tensor]]  # the parts of one batch's loss


@dataclass(frozen=True)
class Budget:
    data: tuple[Path, ...] = settings.setting((), "folders of shards written by vlfau-synthesize")
    out: Path | None = settings.setting(None, "folder for checkpoints and figures")  # noqa: RUF009
    minutes: float = settings.setting(25.0, "training time; a resumed run uses what is left of it")
    steps: int = settings.setting(0, "batches after which the run ends even if time is left; 0 for no limit")
    start: Path | None = settings.setting(None, "folder of a run to start from its weights")  # noqa: RUF009
    export: Path | None = settings.setting(None, "folder for the .onnx file and its .json card")  # noqa: RUF009
    batch: int = settings.setting(64, "crops or scenes in a batch")
    learning_rate: float = settings.setting(2e-3, "peak of the cosine schedule")
    validation: int = settings.setting(10_000, "held-out crops or scenes for validation")
    seed: int = settings.setting(0, "seed of all random numbers")
    threads: int = settings.setting(1, "cores to use")
    limit: int = settings.setting(40_000, "pictures held in memory, 77 kB each")
    device: str = settings.setting("cpu", "torch device")


class TrainingRun(Generic[N]):
    """One training run; its result is `average`."""

    def __init__(self, network: N, budget: Budget, folder: Path) -> None:
        self.budget, self.checkpoints = budget, Checkpoints(folder / "checkpoints")
        self.network: N = network.to(budget.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average: N = copy.deepcopy(self.network).eval()
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=budget.learning_rate, weight_decay=1e-2)
        self.seconds, self.steps = 0.0, 0
        if self.checkpoints.exists():
            self._load()
            print(f"Resumes {folder}: {self.steps} steps, {self.seconds / 60:.1f} minutes", flush=True)
        elif budget.start is not None:
            weights = averaged(budget.start)
            self.network.load_state_dict(weights)
            self.average.load_state_dict(weights)

    def _load(self) -> None:
        tensors, state = self.checkpoints.load()
        unpack(tensors, self.network, self.optimiser, self.average.state_dict(), self.checkpoints.pointer)
        self.seconds, self.steps = float(state["seconds"]), int(state["step"])

    @property
    def done(self) -> float:
        """Share of the budget that is used up, 0..1."""
        by_steps = self.steps / self.budget.steps if self.budget.steps else 0.0
        return min(1.0, max(by_steps, self.seconds / (self.budget.minutes * 60)))

    def save(self) -> None:
        tensors = pack(self.network, self.optimiser, self.average.state_dict())
        self.checkpoints.save(tensors, {"step": self.steps, "seconds": self.seconds})

    def train(self, cost: Cost[N], refresh: Callable[[], int]) -> None:
        """`cost` gives the parts of one batch's loss; `refresh` reads new shards and returns the number of pictures."""
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

    def _step(self, cost: Cost[N], random: np.random.Generator) -> dict[str, float]:
        rate = self.budget.learning_rate * warmup(self.steps, 200) * (cosine(self.done) + 0.005)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.network.train()
        losses = cost(self.network, random)
        self.optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        self.steps += 1
        update_mean(self.average.state_dict(), self.network.state_dict(), 0.999, self.steps)
        return {name: float(value.detach()) for name, value in losses.items()}


def averaged(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of the run in `folder`."""
    tensors, _ = Checkpoints(folder / "checkpoints").load()
    return {name.removeprefix("mean."): value for name, value in tensors.items() if name.startswith("mean.")}


@dataclass(frozen=True)
class Task(Generic[N]):
    """One kind of small network: how it is built, trained, validated and exported."""

    name: str  # of the exported files and of the module that runs it
    network: Callable[[], N]
    cost: Callable[[RenderedCrops, Budget], Cost[N]]
    validate: Callable[[N, RenderedCrops, Budget], dict[str, float]]  # on identities that were held out
    threshold: Callable[[dict[str, float]], float]  # from these figures
    example: tuple[int, ...]  # shape of an input of the exported graph
    names: tuple[list[str], list[str]]  # of inputs and outputs
    shapes: Callable[[], Any]  # which of their axes are dynamic, as torch.export takes it
    facts: dict[str, Any] = field(default_factory=dict)  # additional entries of the card


def run_task(task: Task[N], arguments: Sequence[str] | None, description: str | None, **defaults: int) -> None:
    """The command of a task: reads the budget from the flags, with the task's `defaults`, and trains."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.{task.name}", description=description)
    settings.add_flags(parser, Budget)
    parser.set_defaults(**defaults)
    train(task, settings.read(Budget, None, parser.parse_args(arguments)))


def train(task: Task[N], budget: Budget) -> dict[str, float]:
    """Trains on renders, validates, exports if the budget names a folder, and returns the figures."""
    torch.set_num_threads(budget.threads)
    torch.manual_seed(budget.seed)
    cv2.setNumThreads(1)
    out = budget.out or Path("runs") / task.name
    out.mkdir(parents=True, exist_ok=True)
    renders, held_out = open_renders(budget)
    run = TrainingRun(task.network(), budget, out)
    run.train(task.cost(renders, budget), renders.refresh)
    held_out.refresh()
    figures = task.validate(run.average, held_out, budget)
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if budget.export is not None:
        card = card_of(run, task.name, task.threshold(figures), figures, len(renders)) | task.facts
        example = torch.zeros(task.example, dtype=torch.uint8)
        path = budget.export / f"{task.name}.onnx"
        print(export(run.average, path, example, task.names, task.shapes(), card), flush=True)
    print(json.dumps(figures), flush=True)
    return figures


def open_renders(budget: Budget) -> tuple[RenderedCrops, RenderedCrops]:
    """Renders to train on, and renders of held-out identities."""
    renders = RenderedCrops(budget.data, held_out=False, limit=budget.limit)
    held_out = RenderedCrops(budget.data, held_out=True, limit=max(64, budget.limit // 10))
    renders.refresh()
    held_out.refresh()
    if not renders.faces or not held_out.faces:
        folders = ", ".join(map(str, budget.data)) or "no folder"
        raise UserError(f"No faces to train on in {folders}. Give --data folders written by vlfau-synthesize.")
    return renders, held_out


def export(
    network: nn.Module,
    path: Path,
    example: Tensor,
    names: tuple[list[str], list[str]],
    shapes: Any,
    card: dict[str, Any],
) -> Path:
    """Writes the .onnx file (weights in half precision, arithmetic in single) and its card with the sha256."""
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
        raise RuntimeError("torch.onnx.export returned nothing")
    onnx.save(_halved(program.model_proto), str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(card | {"sha256": digest}, indent=2) + "\n", encoding="utf-8")
    return path


def _halved(model: Any) -> Any:
    """Stores large weights in half precision behind a cast: half the file size, the same arithmetic."""
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


def card_of(
    run: TrainingRun[Any], name: str, threshold: float, figures: dict[str, float], pictures: int
) -> dict[str, Any]:
    """Facts about the exported network, for `models/embedded` and the provenance of bundles."""
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
