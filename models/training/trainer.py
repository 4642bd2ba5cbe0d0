"""The training loop: any network of `networks.py` on any samples of `samples.py`, by a `Recipe`, into a run folder.

Everything random is a function of (seed, epoch, index) or (seed, step), so the position alone resumes a killed run
exactly. The loop knows neither layouts (`data/__init__.py`) nor what a network is made of.
"""

from __future__ import annotations

import math
import signal
import threading
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
from ..data.loading import BatchOrder, Loader, _dead_workers_told
from ..data.samples import Samples, people_of
from ..errors import UserError
from ..sentences.targets import Texts
from ..terminal import clock
from .batch_norms import renew_statistics
from .display import Display
from .position import Position, Sums, pack, unpack
from .prediction import predict_log_odds
from .processes import Processes
from .recipe import Recipe
from .run_folder import RunFolder
from .schedule import RunningMean, decay_groups, rate_at

if TYPE_CHECKING:
    from ..networks.base import AUNetwork

Batch = dict[str, Tensor]


class Losses(nn.Module):
    """`losses` as `forward`, which is what torch's wrappers for several processes and for compiling can wrap."""

    def __init__(self, network: AUNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = self.network.losses(batch)
        return terms


class Trainer:
    """One run. `train()` starts it, or goes on where the run folder's checkpoint stands."""

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
            # The stem alone: sentences differ in length from batch to batch, and a compiled decoder is compiled again
            # for each of them (bench/training.py speed: minutes more, and slower steps in the end).
            network.stem.compile()
        if group.world > 1:
            places = None if self.device.type == "cpu" else [self.device]
            module = nn.parallel.DistributedDataParallel(module, device_ids=places)
        self.module = module
        self.at = Position()
        self.sums, self.epoch_sums = Sums(), Sums()  # since the last line of the log, and of the epoch before that
        self.shown_loss: float | None = None
        self.speed: dict[str, float] = {}
        self.stopping = False

    def train(self) -> Position:
        checkpoints = self.run.checkpoints
        if checkpoints.exists():
            self._resume()
        elif self.group.first:
            checkpoints.hold_space(sum(value.nbytes for value in self.network.state_dict().values()) * 4 + 1_000_000)
        self.group.wait()
        self._clock_s = time.monotonic() - self.at.elapsed_s
        with _dead_workers_told(), self._on_interrupt():
            while self.at.trained or not self._finished():
                self._train_epoch()
                if self.stopping:
                    self.display.say(f"Stopped at step {self.at.step}. Run the same command again to go on.")
                    break
                self._test_epoch()
        return self.at

    def _train_epoch(self) -> None:
        """The rest of the epoch at hand, then a checkpoint: what was trained is safe before the test begins."""
        if self.at.trained:  # killed during the test
            return
        recipe, at, group = self.recipe, self.at, self.group
        samples = self.data.open(at.files)
        at.files = self.data.files
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
        for made in loader:
            whole = sequence[at.batch * recipe.batch : (at.batch + 1) * recipe.batch]
            self._step(self._complete(made, samples, whole, weights), at.epoch + at.batch / batches)
            seconds = max(time.monotonic() - began_s, 1e-9)
            speed = {"images_s": (at.images - began_images) / seconds, "wait_share": loader.waited_s / seconds}
            at.elapsed_s = group.agree(time.monotonic() - self._clock_s)
            if at.step % recipe.log_every == 0:
                self._log(speed)
            self._show(speed, at.epoch + at.batch / batches)
            if at.batch >= batches or self._finished():
                at.trained = True
                break
            if self.stopping or group.agree(time.monotonic() - saved_s) > recipe.checkpoint_every:
                self._save()
                saved_s = time.monotonic()
            if self.stopping:
                return
        self.speed = speed
        self.epoch_sums.extend(self.sums)
        self.sums = Sums()
        self._check_finite(self._means(self.epoch_sums))
        self._save()

    def _step(self, batch: Batch, epochs_done: float) -> None:
        """One optimiser step on one batch, in `accumulate` parts."""
        recipe, at = self.recipe, self.at
        # All draws within the step (drop path, dropout) follow from its number, so no random state is stored.
        torch.manual_seed((recipe.seed * 1_000_003 + at.step) * 4096 + self.group.rank)
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = self._rate(epochs_done)
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

    def _complete(self, made: Batch, samples: Samples, whole: NDArray[np.int64], weights: Tensor) -> Batch:
        """Sentences, class weights and the way to the device. `whole` is the batch over all processes."""
        batch = dict(made)
        if self.texts is not None:
            rng = np.random.default_rng((self.recipe.seed, self.at.epoch, self.at.batch))
            # of the whole batch, so that n processes see what one would
            targets = self.texts.targets(samples.labels[whole], rng, people_of(samples, whole))
            batch |= {key: value[self.group.rank :: self.group.world] for key, value in targets.items()}
        placed = {key: value.to(self.device, non_blocking=True) for key, value in batch.items()}
        return placed | {"unit_weights": weights}

    def _test_epoch(self) -> None:
        """Weights of the epoch, its score, and the step to the next epoch."""
        at, recipe, test = self.at, self.recipe, self.data.test
        row: dict[str, Any] = {"kind": "epoch", "epoch": at.epoch, "step": at.step, "images": at.images}
        row |= {"elapsed_s": round(at.elapsed_s, 1), **self._means(self.epoch_sums), **self.speed}
        if self.group.first:
            with self._mean_weights():
                self._keep_weights("last")
                if test is not None and len(test):
                    labels, log_odds, _ = predict_log_odds(
                        self.network, test, batch=recipe.batch, workers=recipe.workers, limit=recipe.test_images
                    )
                    f1 = metrics.f1(metrics.counts(labels, log_odds >= 0))
                    row["test_f1"] = metrics.mean(f1)
                    row["test_f1_units"] = dict(zip(self.network.units, np.round(f1, 4).tolist()))
                    if row["test_f1"] > at.best_f1:
                        at.best_f1, at.best_epoch = row["test_f1"], at.epoch
                        self._keep_weights("best")
            self.run.write(**row)
            self.display.curves(at.step, {key: value for key, value in row.items() if isinstance(value, float)})
            tested = f", test F1 {row['test_f1']:.3f} (best {at.best_f1:.3f})" if "test_f1" in row else ""
            speed = f"{row.get('images_s', 0):.1f} images/s, {row.get('wait_share', 0):.0%} waiting for data"
            self.display.say(f"Epoch {at.epoch + 1}: loss {row.get('loss', float('nan')):.4f}{tested}, {speed}")
        self.group.wait()
        at.epoch, at.batch, at.trained, at.files = at.epoch + 1, 0, False, None
        self.epoch_sums = Sums()
        self._save(tensors=False)

    def _finished(self) -> bool:
        recipe, at = self.recipe, self.at
        if recipe.steps is not None:
            return at.step >= recipe.steps
        if recipe.minutes is not None:
            return at.elapsed_s >= recipe.minutes * 60
        return at.epoch >= recipe.epochs

    def _progress(self, epochs_done: float) -> float:
        """0..1 over the whole run."""
        recipe, at = self.recipe, self.at
        if recipe.steps is not None:
            return at.step / recipe.steps
        if recipe.minutes is not None:
            return at.elapsed_s / (recipe.minutes * 60)
        return epochs_done / recipe.epochs

    def _rate(self, epochs_done: float) -> float:
        how = self.recipe
        return rate_at(
            self._progress(epochs_done),
            self.at.step,
            peak=how.learning_rate,
            shape=how.schedule,
            warmup_steps=how.warmup_steps,
            floor=how.floor,
        )

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
            kept = self.run.checkpoints
            where = f"from {kept.pointer}, the last checkpoint," if kept.exists() else "from the beginning"
            raise UserError(
                f"The loss is not a number at step {self.at.step} ({', '.join(broken)}); nothing of it was saved. Go "
                f"on {where} with --learning-rate below {self.recipe.learning_rate:g}, --clip 1 or --precision fp32."
            )

    def _show(self, speed: dict[str, float], epochs_done: float) -> None:
        if not self.group.first:
            return
        at, done = self.at, min(1.0, self._progress(epochs_done))
        left = clock(at.elapsed_s / done - at.elapsed_s) if done > 0 else "?"
        parts = [f"loss {self.shown_loss:.4f}"] if self.shown_loss is not None else []
        parts += [f"test F1 {at.best_f1:.3f}"] if at.best_epoch >= 0 else []
        parts += [f"{speed['images_s']:.1f} images/s", f"{speed['wait_share']:.0%} waiting for data", f"{left} left"]
        self.display.show(f"epoch {at.epoch + 1} step {at.step}", done, "  ".join(parts))

    def _save(self, tensors: bool = True) -> None:
        """A checkpoint; without tensors only the position changes, as after a test."""
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
            self.display.say(f"Going on at step {self.at.step}, epoch {self.at.epoch + 1}.")

    def _keep_weights(self, name: str) -> None:
        self.run.save_weights(name, self.network.state_dict(), epoch=self.at.epoch)

    @contextmanager
    def _mean_weights(self) -> Iterator[None]:
        """The running mean in the network's place, where there is one, with batch norms that fit it."""
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

    @contextmanager
    def _on_interrupt(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end the run after the step at hand, with a checkpoint; a second one ends it at once."""
        if self.group.world > 1 or threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, _: object) -> None:
            self.stopping = True
            signal.signal(number, signal.default_int_handler)

        previous = [(number, signal.signal(number, stop)) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            yield
        finally:
            for number, handler in previous:
                signal.signal(number, handler)


def unit_weights(labels: NDArray[np.int8]) -> NDArray[np.float32]:
    """(n, A) -> (A,) the paper's (1/rate_i) / sum_j (1/rate_j); rates below 0.001 count as that."""
    known = np.maximum((labels >= 0).sum(0), 1)
    rate = np.maximum((labels == 1).sum(0), 1) / known
    inverse = 1 / np.maximum(rate, 1e-3)
    return np.asarray(inverse / inverse.sum(), np.float32)


def _parts(batch: Batch, count: int) -> list[Batch]:
    """Equal parts of a batch; tensors that describe no sample go to all of them."""
    if count == 1:
        return [batch]
    size = len(batch["crops"])
    cut = {key: value.chunk(count) if len(value) == size else (value,) * count for key, value in batch.items()}
    return [{key: pieces[number] for key, pieces in cut.items()} for number in range(count)]


def _precision(asked: str, device: torch.device) -> torch.dtype | None:
    if asked == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[asked]
