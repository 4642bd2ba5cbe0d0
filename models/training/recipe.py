"""How to train: every setting of the trainer, with the paper's recipe as the default. Does nothing by itself."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError
from ..settings import setting


@dataclass(frozen=True)
class Recipe:
    """[training] of a configuration file. What the paper leaves open: learning rate and schedule."""

    epochs: int = setting(15, "epochs to train; ignored with --steps or --minutes")
    steps: int | None = setting(None, "train this many optimiser steps instead of epochs")
    minutes: float | None = setting(None, "train this long instead; the learning rate falls with the clock")
    batch: int = setting(64, "pictures per optimiser step, over all processes")
    accumulate: int = setting(1, "parts in which a batch is computed, to save memory; gradients are added up")
    learning_rate: float = setting(1e-4, "peak learning rate of AdamW")
    schedule: str = setting("cosine", "how the learning rate falls", choices=("cosine", "linear", "constant"))
    warmup_steps: int = setting(0, "steps over which the learning rate rises from nothing")
    floor: float = setting(0.0, "learning rate at the end, as a share of the peak")
    beta1: float = setting(0.9, "first moment of AdamW")
    beta2: float = setting(0.999, "second moment of AdamW")
    weight_decay: float = setting(5e-4, "weight decay of AdamW, on matrices and convolutions")
    clip: float = setting(0.0, "largest norm of the gradient; 0 does not clip")
    mean_decay: float = setting(
        0.0, "running mean of the weights, e.g. 0.999; tested and exported in their place; 0 is off"
    )
    precision: str = setting(
        "auto", "auto is bf16 on a GPU that has it, else fp32", choices=("auto", "fp32", "bf16", "fp16")
    )
    compile: bool = setting(False, "torch.compile: minutes at the start, faster steps afterwards")
    state_noise: float = setting(
        0.1, "mean share of states told wrongly to a captioner that is told states, so that it obeys"
    )
    hold_encoder: bool = setting(
        False, "train sentences (and the judge of points) and leave the encoder as --start-from gave it: much faster"
    )
    seed: int = setting(0, "of weights, order, augmentation and sentences")
    workers: int = setting(2, "processes that prepare batches; 0 prepares them in the training process")
    checkpoint_every: float = setting(300.0, "seconds between checkpoints within an epoch", metavar="SECONDS")
    log_every: int = setting(20, "steps between two lines of metrics.jsonl and TensorBoard")
    epoch_images: int | None = setting(None, "cut an epoch after this many pictures", metavar="N")
    test_images: int | None = setting(None, "test on at most this many pictures after an epoch", metavar="N")
    threads: int = setting(0, "threads of the CPU; 0 is torch's choice; on a machine with other work, 1 is fastest")
    device: str = setting("auto", "auto, cpu, cuda or cuda:1")

    def __post_init__(self) -> None:
        if self.batch < 1 or self.accumulate < 1 or self.batch % self.accumulate:
            raise UserError(f"A batch of {self.batch} cannot be cut into {self.accumulate} equal parts.")
        for name in ("epochs", "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"Setting '{name}' must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.mean_decay < 1:
            raise UserError(f"Setting 'mean_decay' lies between 0 and 1, got {self.mean_decay}.")
        if self.learning_rate <= 0:
            raise UserError(f"Setting 'learning_rate' must be positive, got {self.learning_rate}.")
