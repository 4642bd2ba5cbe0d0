"""The real network in its smallest size with random weights, exported: what `small_bundle` stands in for.

The property it gives: all code between the trained modules and the runtimes is what users run. Untrained log-odds
barely depend on the image, so the classifiers' weights are enlarged until they do.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import numpy as np

from vlfau.models.bundle import Bundle, Manifest, open_bundle, write_manifest

if TYPE_CHECKING:
    from vlfau.models.networks.base import AUNetwork

UNITS = ("AU01", "AU04", "AU06", "AU12", "AU25")


@cache
def tiny_bundle() -> Bundle:
    """Exported once per process; do not change it. Tracing the graphs takes ten seconds and more."""
    from vlfau.models.export.run import export

    network, config = _network()
    return export(network, config, Path(mkdtemp(prefix="vlfau-tiny-")) / "bundle", name="tiny")


def tiny_weights(folder: Path, seed: int = 1) -> Bundle:
    """The same without graphs, which is fast: all that the torch runtime reads."""
    from vlfau.models.export.selftest import selftest
    from vlfau.models.tensors import save_tensors

    network, config = _network(seed)
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / "weights.safetensors", network.state_dict())
    np.savez(str(folder / "selftest.npz"), **selftest(network))  # type: ignore[arg-type]
    manifest = Manifest(
        name="tiny",
        units=UNITS,
        side=network.side,
        network=config,
        thresholds=(0.5,) * len(UNITS),
        temperatures=(1.0,) * len(UNITS),
        tiers=("unrated",) * len(UNITS),
        vocabulary=tuple(config["vocabulary"]),
        words=network.words,
        files={"weights.safetensors": "", "selftest.npz": ""},
    )
    write_manifest(folder, manifest)
    return open_bundle(folder)


def _network(seed: int = 1) -> tuple[AUNetwork, dict[str, Any]]:
    import torch

    from vlfau.models.networks import NetworkChoice, build, configure
    from vlfau.models.sentences import loading

    torch.manual_seed(seed)
    choice = NetworkChoice(size="tiny", pretrained=False)
    config = configure(choice, UNITS, loading.load(), {"words": 10, "state_conditioned": True})
    network = build(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("classify"):
                parameter.mul_(60.0)
            if name.startswith("describe") and name.endswith("output.bias"):
                parameter[2] += 0.25  # sentences end at different words
    return network, config
