"""The training loop: trains any `AUNetwork` on any samples, as a `Recipe` says, into a run folder.

Everything random is a function of (seed, epoch, index) or (seed, step), so the position is enough to resume a killed
run exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import metrics
from ..data import TrainingData
from ..data.batches import BatchOrder, Loader, report_dead_workers
from ..data.samples import Samples, descriptions_of
from ..errors import UserError
from ..sentences.targets import Texts
from .batch_norms import renew_statistics
from .display import Display
from .position import Position, Sums, pack, unpack
from .prediction import predict_log_odds
from .processes import Processes
from .recipe import Recipe
from .run_folder import RunFolder
from .schedule import RunningMean, Schedule, decay_groups
from .signals import StopRequest

if TYPE_CHECKING:
    from ..networks.base import AUNetwork

Batch = dict[str, Tensor]


class Losses(nn.Module):
    """`losses` as `forward`, which DistributedDataParallel wraps."""

    def __init__(self, network: AUNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = self.network.losses(batch)
        return terms


class Trainer:
    """One run. `train()` starts it, or resumes it from the checkpoint of the run folder."""

    def __init__(
        self,
        network: AUNetwork,
        data: TrainingData,
        texts: Texts | None,
        recipe: Recipe,
        run: RunFolder,
        group: Processes,
        display: Display,
    ) -> None:
        self.network, self.data, self.texts, self.recipe = network, data, texts, recipe
        self.run, self.group, self.display = run, group, display
        self.schedule = Schedule(recipe)
        self.device = group.device
        network.to(self.device)
        network.to(memory_format=torch.channels_last)
        if recipe.hold_encoder:
            network.hold_encoder()
        self.optimiser = torch.optim.AdamW(
            decay_groups(network.named_parameters(), recipe.weight_decay),
            lr=recipe.learning_rate,
            betas=(recipe.beta1, recipe.beta2),
            fused=True,
        )
        self.mean = RunningMean(network, recipe.mean_decay) if recipe.mean_decay else None
        self.precision = _precision(recipe.precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == torch.float16)
        module: Any = Losses(network)
        if recipe.compile:
            network.compile_encoder()
        if group.world > 1:
            devices = None if self.device.type == "cpu" else [self.device]
            module = nn.parallel.DistributedDataParallel(module, device_ids=devices)
        self.module = module
        self.at = Position()
        self.sums, self.epoch_sums = Sums(), Sums()  # since the last line of the log, and before it in this epoch
        self.shown_loss: float | None = None
        self.speed: dict[str, float] = {}
        self.stop = StopRequest(enabled=group.world == 1)

    def train(self) -> Position:
        checkpoints = self.run.checkpoints
        if checkpoints.exists():
            self._resume()
        elif self.group.first:
            checkpoints.hold_space(sum(value.nbytes for value in self.network.state_dict().values()) * 4 + 1_000_000)
        self.group.wait()
        self._clock_s = time.monotonic() - self.at.elapsed_s
        with report_dead_workers(), self.stop:
            while self.at.trained or not self.schedule.finished(self.at):
                self._train_epoch()
                if self.stop.requested:
                    self.display.say(f"Stopped at step {self.at.step}. Run the same command again to continue.")
                    break
                self._test_epoch()
        return self.at

    def _train_epoch(self) -> None:
        """The rest of the current epoch, then a checkpoint, so that the epoch is safe before its test begins."""
        if self.at.trained:  # killed during the test
            return
        recipe, at, group = self.recipe, self.at, self.group
        samples = self.data.open(at.files)
        at.files = samples.files
        order = BatchOrder(samples, recipe.batch, seed=recipe.seed, rank=group.rank, world=group.world)
        order.epoch, order.start = at.epoch, at.batch
        batches = order.batches
        if recipe.epoch_images is not None:
            batches = min(batches, max(1, recipe.epoch_images // recipe.batch))
        sequence = order.indices()
        weights = torch.from_numpy(unit_weights(samples.labels)).to(self.device)
        loader = Loader(samples, order, workers=recipe.workers, pin=self.device.type == "cuda")
        began_s = saved_s = time.monotonic()
        began_images = at.images
        self.module.train()
        for part in loader:
            whole = sequence[at.batch * recipe.batch : (at.batch + 1) * recipe.batch]
            self._step(self._complete(part, samples, whole, weights), at.epoch + at.batch / batches)
            seconds = max(time.monotonic() - began_s, 1e-9)
            speed = {"images_s": (at.images - began_images) / seconds, "wait_share": loader.waited_s / seconds}
            at.elapsed_s = group.agree(time.monotonic() - self._clock_s)
            if at.step % recipe.log_every == 0:
                self._log(speed)
            done = self.schedule.progress(at, at.epoch + at.batch / batches)
            self.display.step(at, done, self.shown_loss, speed)
            if at.batch >= batches or self.schedule.finished(at):
                at.trained = True
                break
            if self.stop.requested or group.agree(time.monotonic() - saved_s) > recipe.checkpoint_every:
                self._save()
                saved_s = time.monotonic()
            if self.stop.requested:
                return
        self.speed = speed
        self.epoch_sums.extend(self.sums)
        self.sums = Sums()
        self._check_finite(self._means(self.epoch_sums))
        self._save()

    def _step(self, batch: Batch, epochs_done: float) -> None:
        """One optimiser step on one batch, in `accumulate` parts."""
        recipe, at = self.recipe, self.at
        # All random numbers within a step (drop path, dropout) follow from its number, so no random state is stored.
        torch.manual_seed((recipe.seed * 1_000_003 + at.step) * 4096 + self.group.rank)
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = self.schedule.rate(at, epochs_done)
        parts = _parts(batch, recipe.accumulate)
        for number, part in enumerate(parts, 1):
            shared = number == len(parts) or self.group.world == 1
            with nullcontext() if shared else self.module.no_sync():
                with torch.autocast(self.device.type, self.precision, enabled=self.precision is not None):
                    terms = self.module(part)
                values = torch.stack([term.float() for term in terms.values()]) / len(parts)
                self.scaler.scale(values.sum()).backward()  # type: ignore[no-untyped-call]
            self.sums.add(list(terms), values.detach(), 1 / len(parts))
        if recipe.clip:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        at.step, at.batch, at.images = at.step + 1, at.batch + 1, at.images + recipe.batch
        if self.mean is not None:
            self.mean.update(self.network, at.step)

    def _complete(self, part: Batch, samples: Samples, whole: NDArray[np.int64], weights: Tensor) -> Batch:
        """Adds sentences and class weights, and moves it to the device. `whole` is the batch over all processes."""
        batch = dict(part)
        if self.texts is not None:
            rng = np.random.default_rng((self.recipe.seed, self.at.epoch, self.at.batch))
            # of the whole batch, so that several processes see what one would
            targets = self.texts.targets(samples.labels[whole], rng, descriptions_of(samples, whole))
            batch |= {key: value[self.group.rank :: self.group.world] for key, value in targets.items()}
        placed = {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
        return placed | {"unit_weights": weights}

    def _test_epoch(self) -> None:
        """Saves and scores the weights of the epoch, and moves on to the next one."""
        at, recipe, test = self.at, self.recipe, self.data.test
        row: dict[str, Any] = {"kind": "epoch", "epoch": at.epoch, "step": at.step, "images": at.images}
        row |= {"elapsed_s": round(at.elapsed_s, 1), **self._means(self.epoch_sums), **self.speed}
        if self.group.first:
            with self._mean_weights():
                self.run.save_weights("last", self.network.state_dict(), epoch=at.epoch)
                if test is not None and len(test):
                    labels, log_odds, _ = predict_log_odds(
                        self.network, test, batch=recipe.batch, workers=recipe.workers, limit=recipe.test_images
                    )
                    f1 = metrics.f1(metrics.counts(labels, log_odds >= 0))
                    row["test_f1"] = metrics.mean(f1)
                    row["test_f1_units"] = dict(zip(self.network.units, np.round(f1, 4).tolist()))
                    if row["test_f1"] > at.best_f1:
                        at.best_f1, at.best_epoch = row["test_f1"], at.epoch
                        self.run.save_weights("best", self.network.state_dict(), epoch=at.epoch)
            self.run.write(**row)
            self.display.epoch(at, row)
        self.group.wait()
        at.epoch, at.batch, at.trained, at.files = at.epoch + 1, 0, False, None
        self.epoch_sums = Sums()
        self._save(tensors=False)

    def _log(self, speed: dict[str, float]) -> None:
        means = self._means(self.sums)
        self._check_finite(means)
        self.epoch_sums.extend(self.sums)
        self.sums = Sums()
        self.shown_loss = means["loss"]
        if self.group.first:
            rate = float(self.optimiser.param_groups[0]["lr"])
            self.run.write(kind="train", step=self.at.step, epoch=self.at.epoch, rate=rate, **means, **speed)
            self.display.curves(self.at.step, {"rate": rate, **means, **speed})

    def _means(self, sums: Sums) -> dict[str, float]:
        """Each term and their sum, averaged over steps and processes."""
        if sums.tensor is None:
            return {}
        *totals, steps = self.group.sums([*sums.tensor.tolist(), sums.steps])
        terms = {f"loss_{name}": total / steps for name, total in zip(sums.names, totals)}
        return {"loss": sum(terms.values()), **terms}

    def _check_finite(self, means: dict[str, float]) -> None:
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            last = self.run.checkpoints
            where = f"from {last.pointer}, the last checkpoint," if last.exists() else "from the beginning"
            raise UserError(
                f"The loss is not a number at step {self.at.step} ({', '.join(broken)}); these weights were not saved. "
                f"Continue {where} with --learning-rate below {self.recipe.learning_rate:g}, --clip 1 or "
                "--precision fp32."
            )

    def _save(self, tensors: bool = True) -> None:
        """Writes a checkpoint; without tensors only the position, as after a test."""
        if not self.group.first:
            return
        if not self.sums.finite():
            self._check_finite({name: float("nan") for name in self.sums.names})
        state = {
            "step": self.at.step,
            "units": list(self.network.units),
            "position": self.at.table(),
            "sums": self.sums.table(),
            "epoch_sums": self.epoch_sums.table(),
            "scaler": self.scaler.state_dict(),
        }
        if tensors:
            mean = self.mean.tensors if self.mean is not None else None
            self.run.checkpoints.save(pack(self.network, self.optimiser, mean), state)
        else:
            self.run.checkpoints.note(state)

    def _resume(self) -> None:
        tensors, state = self.run.checkpoints.load()
        if state["units"] != list(self.network.units):
            raise UserError(
                f"{self.run.checkpoints.pointer} was trained for {' '.join(state['units'])}, not for "
                f"{' '.join(self.network.units)}. Use the same --units, or another --output."
            )
        mean = self.mean.tensors if self.mean is not None else None
        unpack(tensors, self.network, self.optimiser, mean, self.run.checkpoints.folder / state["tensors"])
        self.at.take(state["position"])
        self.sums = Sums.from_table(state["sums"], self.device)
        self.epoch_sums = Sums.from_table(state["epoch_sums"], self.device)
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self.group.first:
            self.run.forget_after(self.at.step, self.at.epoch)
            self.display.say(f"Resuming at step {self.at.step}, epoch {self.at.epoch + 1}.")

    @contextmanager
    def _mean_weights(self) -> Iterator[None]:
        """Puts the running mean, if there is one, in place of the weights, with batch-norm statistics that fit it."""
        if self.mean is None:
            yield
            return
        own = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.mean.tensors)
        if not self.recipe.hold_encoder:
            renew_statistics(
                self.network,
                lambda: self.data.open(self.at.files),
                batch=self.recipe.batch,
                workers=self.recipe.workers,
            )
        try:
            yield
        finally:
            self.network.load_state_dict(own)


def unit_weights(labels: NDArray[np.int8]) -> NDArray[np.float32]:
    """(n, A) -> (A,) the paper's (1/rate_i) / sum_j (1/rate_j); rates below 0.001 count as 0.001."""
    known = np.maximum((labels >= 0).sum(0), 1)
    rate = np.maximum((labels == 1).sum(0), 1) / known
    inverse = 1 / np.maximum(rate, 1e-3)
    return np.asarray(inverse / inverse.sum(), np.float32)


def _parts(batch: Batch, count: int) -> list[Batch]:
    """Equal parts of a batch; tensors that do not belong to samples go to all of them."""
    if count == 1:
        return [batch]
    size = len(batch["crops"])
    cut = {key: value.chunk(count) if len(value) == size else (value,) * count for key, value in batch.items()}
    return [{key: pieces[number] for key, pieces in cut.items()} for number in range(count)]


def _precision(name: str, device: torch.device) -> torch.dtype | None:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
