"""The real network in its smallest size with random weights, exported for real: what `small_bundle` only stands in for.

The property it gives: every piece between the trained modules and the runtimes is the one that users run. Untrained
log-odds hardly depend on the picture, so the classifiers' weights are enlarged until they do.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from vlfau.models.bundle import Bundle

UNITS = ("AU01", "AU04", "AU06", "AU12", "AU25")


@cache
def tiny_bundle() -> Bundle:
    """Made once per process; do not change it."""
    import torch

    from vlfau.models import texts
    from vlfau.models.exporting import export
    from vlfau.models.networks import NetworkChoice, build, configure

    torch.manual_seed(1)
    choice = NetworkChoice(size="tiny", pretrained=False)
    config = configure(choice, UNITS, texts.load(), {"words": 10, "state_conditioned": True})
    network = build(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("classify"):
                parameter.mul_(60.0)
            if name.startswith("describe") and name.endswith("output.bias"):
                parameter[2] += 0.25  # sentences end at different words
    return export(network, config, Path(mkdtemp(prefix="vlfau-tiny-")) / "bundle", name="tiny")
