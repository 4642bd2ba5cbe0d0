"""The terms of the joint loss (eq. 8-12). Unknown labels (-1; NaN for intensities, points) and padding are ignored."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..faces.align import TEMPLATE
from ..sentences.vocabulary import PAD

EYES_APART = float(TEMPLATE[1, 0] - TEMPLATE[0, 0])  # in crop sides


def multi_label(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted multi-label cross-entropy: logits (B, A, 2), labels (B, A), weights (A,) that sum to one (eq. 8)."""
    known = (labels >= 0).float()
    each = F.cross_entropy(logits.float().flatten(0, 1), labels.clamp(min=0).long().flatten(), reduction="none")
    per_unit = (each.view_as(known) * known).sum(0) / known.sum(0).clamp(min=1.0)
    return (per_unit * weights).sum()


def per_word(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood per word: logits (R, T, Voc), targets (R, T) (eq. 10-11)."""
    words = (targets != PAD).float().flatten()
    each = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return (each * words).sum() / words.sum().clamp(min=1.0)


def strength(logits: Tensor, intensity: Tensor) -> Tensor:
    """Cross-entropy against intensities of 0..1: logits and intensity (B, A)."""
    known = torch.isfinite(intensity)
    targets = torch.where(known, intensity, torch.zeros_like(intensity)).clamp(0.0, 1.0)
    each = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none")
    return _mean(each, known)


def distance(points: Tensor, targets: Tensor) -> Tensor:
    """Mean error of points (B, P, 2) along an axis, in distances between the eyes of an aligned crop."""
    known = torch.isfinite(targets)
    each = (points.float() - torch.where(known, targets, torch.zeros_like(targets))).abs()
    return _mean(each, known) / EYES_APART


def _mean(each: Tensor, known: Tensor) -> Tensor:
    """Over what is known; 0 if nothing is."""
    return (each * known).sum() / known.sum().clamp(min=1)
