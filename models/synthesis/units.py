"""The action units of the labels, and all rules that turn drawn intensities into labels.

Sides: side 0 is the left of the picture (smaller x), which is the right half of the person's face, as in the 68 points.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

UNITS = (
    "AU01", "AU02", "AU04", "AU05", "AU06", "AU07", "AU09", "AU10", "AU12",
    "AU14", "AU15", "AU17", "AU20", "AU23", "AU24", "AU25", "AU26", "AU43",
)  # fmt: skip
INDEX = {name: i for i, name in enumerate(UNITS)}

PRESENT = 0.35  # present from this intensity on (about FACS level B)
ABSENT = 0.20  # absent below this; in between even trained coders disagree, so the label is unknown
UNKNOWN = -1

# Pairs that look alike or exclude each other: the stronger one stays.
EXCLUSIVE = (("AU24", "AU25"), ("AU24", "AU26"), ("AU05", "AU43"), ("AU23", "AU26"), ("AU07", "AU05"))

# Lips this far apart (in eye distances, about 7 mm) are AU25 at intensity 1.
FULL_GAP = 0.11

# Eyes begin to look closed at this share of their opening at rest; at 0 they are.
NEARLY_CLOSED = 0.3

# A jaw that drops this far parts the lips, unless they are pressed together.
PARTING_JAW = 0.3


def presence(intensity: NDArray[np.floating]) -> NDArray[np.int8]:
    """Intensities (..., A, 2) of the two sides -> labels (..., A): 1 present, 0 absent, -1 near the threshold.

    A unit is present if either side shows it, as FACS coders score unilateral actions.
    """
    strongest = intensity.max(-1)
    labels = np.where(strongest >= PRESENT, 1, np.where(strongest < ABSENT, 0, UNKNOWN))
    return labels.astype(np.int8)


def reconcile(intensity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Removes the weaker of two exclusive units (A, 2); a dropped jaw parts the lips."""
    result = intensity.copy()
    for one, other in EXCLUSIVE:
        i, j = INDEX[one], INDEX[other]
        if result[i].max() > 0.15 and result[j].max() > 0.15:
            result[j if result[i].max() >= result[j].max() else i] = 0
    jaw, lips = result[INDEX["AU26"]].max(), INDEX["AU25"]
    if jaw > PARTING_JAW:
        result[lips] = np.maximum(result[lips], 0.25 * jaw)
    return result


def with_measured_eyes(intensity: NDArray[np.float32], opening: NDArray[np.floating]) -> NDArray[np.float32]:
    """AU43 as it looks: tight lids and a lowered gaze together close an eye that neither would close alone.

    `opening` (2,) is how far each eye is open as a share of the same person's neutral face.
    """
    result = intensity.copy()
    result[INDEX["AU43"]] = np.maximum(result[INDEX["AU43"]], np.clip(1 - opening / NEARLY_CLOSED, 0, 1))
    return result


def with_measured_mouth(intensity: NDArray[np.float32], gap: float, jaw: float) -> NDArray[np.float32]:
    """AU25 and AU26 as they look: a vowel, a tongue or a raised upper lip part the lips and may drop the jaw.

    `gap` is how much farther the rims of the lips are apart than in the same person's neutral face, in eye distances;
    `jaw` is how far the chin dropped, as a share of AU26 alone at intensity 1; 0 if only AU26 can move it.
    """
    result = intensity.copy()
    parted, dropped = np.float32(np.clip(gap / FULL_GAP, 0.0, 1.2)), np.float32(np.clip(jaw, 0.0, 1.2))
    result[INDEX["AU25"]] = parted if parted > 0.08 else 0.0
    if dropped > 0.12:
        result[INDEX["AU26"]] = np.maximum(result[INDEX["AU26"]], dropped)
    return result
