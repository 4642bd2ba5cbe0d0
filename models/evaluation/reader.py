"""Predicts states and sentences with a run folder or a bundle.

A bundle runs on a `Runtime`, as in the engine. Its torch weights, if it has them, serve only what no runtime provides:
words under teacher forcing, features of the units, attention maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..bundle import MANIFEST, Bundle, open_bundle
from ..errors import UserError
from ..networks import build
from ..networks.base import AUNetwork
from ..sentences import loading
from ..sentences.corpus import Corpus
from ..sentences.targets import Texts
from ..sentences.vocabulary import build as build_vocabulary
from ..sentences.vocabulary import decode
from ..tensors import load_tensors
from ..training.run_folder import load_run

Crops = NDArray[np.uint8]  # (n, S, S, 3)
Sentences = tuple[list[list[str]], list[str]]  # n times A, n


class Reader(Protocol):
    name: str
    units: tuple[str, ...]
    side: int
    thresholds: NDArray[np.float32]  # (A,)
    has_captions: bool
    network: AUNetwork | None
    config: dict[str, Any]
    corpus: Corpus  # that it was trained on

    def probabilities(self, crops: Crops) -> NDArray[np.float32]:
        """(n, A)"""

    def sentences(self, crops: Crops, states: NDArray[np.bool_], beam: int = 1) -> Sentences:
        """One per unit and one per face, for these states; decoded greedily or with a beam."""


class RunReader:
    """A run folder."""

    def __init__(self, folder: Path, which: str = "last", device: str = "cpu", corpus: Path | None = None) -> None:
        network, run = load_run(folder, which)
        self.network: AUNetwork | None = network.to(device)
        self._network = network
        self.name, self.config, self.device = f"{folder} ({which})", run["network"], device
        self.units, self.side, self.has_captions = tuple(run["units"]), network.side, network.has_captions
        self.thresholds = np.full(len(self.units), 0.5, np.float32)
        own = folder / "corpus.toml"
        self.corpus = loading.load(path=corpus or (own if own.is_file() else loading.SHIPPED))

    @torch.inference_mode()
    def probabilities(self, crops: Crops) -> NDArray[np.float32]:
        log_odds = self._network.encode(torch.from_numpy(crops).to(self.device)).log_odds
        return np.asarray(torch.sigmoid(log_odds.float()).cpu().numpy())

    def sentences(self, crops: Crops, states: NDArray[np.bool_], beam: int = 1) -> Sentences:
        return captions(self._network, self.config["vocabulary"], crops, states, beam)


class BundleReader:
    """A bundle on a runtime."""

    def __init__(
        self, bundle: Bundle, runtime: str = "auto", precision: str | None = None, corpus: Path | None = None
    ) -> None:
        from ..runtimes import open_runtime

        self.runtime = open_runtime(bundle, runtime, precision=precision)
        manifest = bundle.manifest
        self.name = f"{bundle.folder} on {self.runtime.description}"
        self.units, self.side, self.config = manifest.units, manifest.side, manifest.network
        self.thresholds, self.has_captions = self.runtime.thresholds, bundle.has_captions
        self.corpus = loading.load(path=corpus or loading.SHIPPED)
        self.network: AUNetwork | None = None
        if "weights.safetensors" in manifest.files:
            self.network = build(manifest.network)
            self.network.load_state_dict(load_tensors(bundle.path("weights.safetensors")))
            self.network.eval()

    def probabilities(self, crops: Crops) -> NDArray[np.float32]:
        return self.runtime.predict(crops).probabilities

    def sentences(self, crops: Crops, states: NDArray[np.bool_], beam: int = 1) -> Sentences:
        if beam > 1:  # runtimes only decode greedily, so the weights in the bundle are used
            if self.network is None:
                raise UserError(f"{self.name} has no weights.safetensors, which a beam needs. Use --beam 1.")
            return captions(self.network, self.config["vocabulary"], crops, states, beam)
        prediction = self.runtime.predict(crops)
        texts = self.runtime.explain(prediction, range(len(crops)), states, np.ones_like(states))
        return [[one.why[unit] for unit in self.units] for one in texts], [one.text for one in texts]


@torch.inference_mode()
def captions(
    network: AUNetwork, vocabulary: Sequence[str], crops: Crops, states: NDArray[np.bool_], beam: int = 1
) -> Sentences:
    """The sentences of a torch network."""
    device = next(network.parameters()).device
    memory = network.encode(torch.from_numpy(crops).to(device)).memory
    active = torch.from_numpy(states.astype(np.float32)).to(device)
    rows = torch.ones_like(active).nonzero()
    local, whole, _ = (tensor.cpu().numpy() for tensor in network.caption(memory, active, rows, beam))
    texts = [decode(tokens, vocabulary) for tokens in local]
    count = active.shape[1]
    per_face = [texts[i : i + count] for i in range(0, len(texts), count)]
    return per_face, [decode(tokens, vocabulary) for tokens in whole]


def open_reader(
    where: str | Path,
    *,
    which: str = "last",
    runtime: str = "auto",
    device: str = "cpu",
    corpus: Path | None = None,
) -> Reader:
    """A run folder, a bundle, or 'embedded'. The default corpus is a run's own, for a bundle the package's."""
    if str(where) == "embedded" or (Path(where) / MANIFEST).is_file():
        return BundleReader(open_bundle(where), runtime, corpus=corpus)
    return RunReader(Path(where), which, device, corpus)


def texts_of(network: AUNetwork, config: dict[str, Any], corpus: Corpus) -> Texts:
    """The sentences that the network was trained on."""
    vocabulary = tuple(config["vocabulary"])
    own = corpus.only(network.units)
    strange = sorted(set(build_vocabulary(own)) - set(vocabulary))
    if strange:
        raise UserError(
            f"The corpus has words outside the vocabulary of this network: {', '.join(strange[:5])}. With --corpus, "
            "give the file that it was trained on, or leave sentences out with --caption-images 0."
        )
    # A network that was trained without --subjects has no words for them.
    subjects = set(build_vocabulary(own, subjects=True)) <= set(vocabulary)
    return Texts(own, vocabulary, network.words, network.state_conditioned, subjects=subjects)
