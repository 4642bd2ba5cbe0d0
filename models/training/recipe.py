"""All settings of a training; the defaults are the paper's recipe."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UserError
from ..settings import setting


@dataclass(frozen=True)
class Recipe:
    """[training] of a configuration file. The paper does not give learning rate and schedule."""

    epochs: int = setting(15, "epochs to train; ignored with --steps or --minutes")
    steps: int | None = setting(None, "train for this many optimiser steps instead")
    minutes: float | None = setting(None, "train for this long instead; the learning rate then follows the clock")
    batch: int = setting(64, "images per optimiser step, over all processes")
    accumulate: int = setting(1, "compute a batch in this many parts, to save memory; gradients are summed")
    learning_rate: float = setting(1e-4, "peak learning rate of AdamW")
    schedule: str = setting("cosine", "how the learning rate falls", choices=("cosine", "linear", "constant"))
    warmup_steps: int = setting(0, "steps over which the learning rate rises from zero")
    floor: float = setting(0.0, "final learning rate, as a share of the peak")
    beta1: float = setting(0.9, "decay of AdamW's first moment")
    beta2: float = setting(0.999, "decay of AdamW's second moment")
    weight_decay: float = setting(5e-4, "weight decay of AdamW, on matrices and convolutions")
    clip: float = setting(0.0, "largest gradient norm; 0 does not clip")
    mean_decay: float = setting(
        0.0, "decay of a running mean of the weights, e.g. 0.999, which is tested and exported instead; 0 is off"
    )
    precision: str = setting(
        "auto", "auto is bf16 on a GPU that supports it, else fp32", choices=("auto", "fp32", "bf16", "fp16")
    )
    compile: bool = setting(False, "use torch.compile: takes minutes at the start, then speeds up each step")
    state_noise: float = setting(
        0.1, "mean share of input states that are flipped, so that sentences follow the states"
    )
    hold_encoder: bool = setting(
        False, "train only sentences and the point classifier and keep the encoder of --start-from: much faster"
    )
    seed: int = setting(0, "random seed of weights, order, augmentation and sentences")
    workers: int = setting(2, "processes that prepare batches; with 0 the training process does")
    checkpoint_every: float = setting(300.0, "seconds between checkpoints within an epoch", metavar="SECONDS")
    log_every: int = setting(20, "steps between values in metrics.jsonl and TensorBoard")
    epoch_images: int | None = setting(None, "end an epoch after this many images", metavar="N")
    test_images: int | None = setting(None, "test on at most this many images after an epoch", metavar="N")
    threads: int = setting(0, "CPU threads; 0 leaves it to torch; on a busy machine 1 is fastest")
    device: str = setting("auto", "auto, cpu, cuda or cuda:1")

    def __post_init__(self) -> None:
        if self.batch < 1 or self.accumulate < 1 or self.batch % self.accumulate:
            raise UserError(f"A batch of {self.batch} cannot be divided into {self.accumulate} equal parts.")
        for name in ("epochs", "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"Setting '{name}' must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.mean_decay < 1:
            raise UserError(f"Setting 'mean_decay' must be at least 0 and below 1, got {self.mean_decay}.")
        if self.learning_rate <= 0:
            raise UserError(f"Setting 'learning_rate' must be positive, got {self.learning_rate}.")
