"""Sentences by the PyTorch decoders, in chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import END, START

if TYPE_CHECKING:
    import torch

    from ..networks.base import AUNetwork
    from ..networks.captioner import Decoder


CHUNK = 8  # words between two looks at the "all ended" flag


class Words:
    """Greedy sentences of a network's two decoders, in captured steps where there is a GPU."""

    def __init__(self, network: AUNetwork, *, graphs: bool) -> None:
        self._network: Any = network
        self._speakers = {
            name: Speaker(decoder, graphs=graphs)
            for name in ("describe_unit", "describe_face")
            if (decoder := getattr(network, name, None)) is not None
        }

    def __call__(
        self, memory: dict[str, Any], active: torch.Tensor, rows: torch.Tensor
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Local tokens (R, T) and global tokens (n, T)."""
        from ..networks.dair import unit_maps

        network, words = self._network, self._network.words
        local, whole = (np.zeros((len(of), words), np.int64) for of in (rows, active))
        visual = memory["visual"]
        if "describe_unit" in self._speakers:
            places = unit_maps(visual, memory["channel"], memory["spatial"], rows)
            local = self._speakers["describe_unit"](places, network._told(active, rows))
        if "describe_face" in self._speakers:
            told = network.face_state(active) if network.face_state is not None else None
            whole = self._speakers["describe_face"](visual.transpose(1, 2), told)
        return local, whole


class Speaker:
    """One decoder. Its state lies in fixed buffers per number of rows; one chunk of steps is captured and replayed."""

    def __init__(self, decoder: Decoder, *, graphs: bool) -> None:
        self._decoder, self._graphs = decoder, graphs
        self._captured: dict[int, tuple[dict[str, Any], Any]] = {}

    def __call__(self, places: torch.Tensor, told: torch.Tensor | None) -> NDArray[np.int64]:
        """places (R, L, d), told (R, h) or None -> tokens (R, T)."""
        rows, words = len(places), self._decoder.words
        size = 1 << max(2, (rows - 1).bit_length()) if self._graphs else rows
        state, graph = self._chunk(size, places)
        first = self._start(places, told)
        for name, value in first.items():
            state[name][:rows].copy_(value)
        state["alive"][rows:] = 0
        spoken = state["spoken"].new_zeros((rows, -(-words // CHUNK) * CHUNK))  # PAD is 0
        for at in range(0, words, CHUNK):
            if graph is None:
                self._advance(state)
            else:
                graph.replay()
            spoken[:, at : at + CHUNK].copy_(state["spoken"][:rows])
            if at + CHUNK < words and not state["alive"].any():
                break
        found: NDArray[np.int64] = spoken[:, :words].cpu().numpy()
        return found

    def _start(self, places: torch.Tensor, told: torch.Tensor | None) -> dict[str, Any]:
        import torch

        hidden, cell, keys = self._decoder.start(places, told)
        token = torch.full((len(places),), START, dtype=torch.int64, device=places.device)
        return {
            "hidden": hidden,
            "cell": cell,
            "keys": keys,
            "places": places,
            "token": token,
            "alive": torch.ones_like(token),
        }

    def _advance(self, state: dict[str, Any]) -> None:
        """CHUNK words on, in place; no value is looked at on the host."""
        import torch

        decoder = self._decoder
        hidden, cell, token, alive = (state[name] for name in ("hidden", "cell", "token", "alive"))
        spoken = []
        for _ in range(CHUNK):
            word = decoder.word_gates(decoder.embedding(token))
            hidden, cell, _ = decoder.step(word, hidden, cell, state["keys"], state["places"])
            token = decoder.output(hidden)[:, END:].argmax(1) + END
            spoken.append(token * alive)
            alive = alive * (token != END).to(torch.int64)
        state["spoken"].copy_(torch.stack(spoken, 1))
        for name, value in (("hidden", hidden), ("cell", cell), ("token", token), ("alive", alive)):
            state[name].copy_(value)

    def _chunk(self, size: int, places: torch.Tensor) -> tuple[dict[str, Any], Any]:
        import torch

        if self._graphs and size in self._captured:
            return self._captured[size]
        empty = places.new_zeros((size, *places.shape[1:]))
        state = {name: value.clone() for name, value in self._start(empty, None).items()}
        state["spoken"] = torch.zeros((size, CHUNK), dtype=torch.int64, device=places.device)
        if not self._graphs:
            return state, None
        stream = torch.cuda.Stream(places.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(places.device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._advance(state)
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                self._advance(state)
        torch.cuda.current_stream(places.device).wait_stream(stream)
        self._captured[size] = (state, graph)
        return state, graph
