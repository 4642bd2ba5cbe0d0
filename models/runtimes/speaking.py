"""Sentences by a network's PyTorch decoders, in chunks of steps that are captured as CUDA graphs on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import MEMORY
from ..sentences.vocabulary import END, START

if TYPE_CHECKING:
    import torch

    from ..networks.base import AUNetwork
    from ..networks.captioner import SentenceDecoder

CHUNK = 8  # words between two reads of the "all ended" flag


class Sentences:
    """Greedy sentences of a network: by its decoders step by step, or by its `caption` if it has no such decoders."""

    def __init__(self, network: AUNetwork, device: torch.device, precision: torch.dtype, *, graphs: bool) -> None:
        self._network, self._device, self._precision, self._graphs = network, device, precision, graphs
        self._decoders: dict[str, ChunkedDecoder] = {}

    def __call__(
        self, memory: dict[str, Any], active: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> dict[str, NDArray[np.int64]]:
        """As `Executor.caption`."""
        import torch

        with torch.inference_mode():
            visual, channel, spatial = (memory[name].to(self._precision) for name in MEMORY)
            states = torch.from_numpy(np.ascontiguousarray(active)).to(self._device, self._precision)
            chosen = torch.from_numpy(np.ascontiguousarray(rows)).to(self._device)
            speakers = self._network.speakers((visual, channel, spatial), states, chosen)
            if not speakers:
                local, whole, _ = self._network.caption((visual, channel, spatial), states, chosen)
                return {"local_tokens": local.cpu().numpy(), "global_tokens": whole.cpu().numpy()}
            tokens = {
                "local_tokens": np.zeros((len(rows), self._network.words), np.int64),
                "global_tokens": np.zeros((len(active), self._network.words), np.int64),
            }
            for name, (decoder, places, decoder_states) in speakers.items():
                if name not in self._decoders:
                    self._decoders[name] = ChunkedDecoder(decoder, graphs=self._graphs)
                tokens[f"{name}_tokens"] = self._decoders[name](places, decoder_states)
            return tokens


class ChunkedDecoder:
    """One decoder. Its state lies in fixed buffers per number of rows; one chunk of steps is captured and replayed.

    Tokens stay on the device until all are there; once per chunk the host reads one flag: whether all rows have ended.
    """

    def __init__(self, decoder: SentenceDecoder, *, graphs: bool) -> None:
        self._decoder, self._graphs = decoder, graphs
        self._captured: dict[int, tuple[dict[str, Any], Any]] = {}

    def __call__(self, places: torch.Tensor, states: torch.Tensor | None) -> NDArray[np.int64]:
        """places (R, L, d), states (R, h) or None -> tokens (R, T)."""
        rows, words = len(places), self._decoder.words
        size = 1 << max(2, (rows - 1).bit_length()) if self._graphs else rows
        buffers, graph = self._chunk(size, places)
        for name, value in self._start(places, states).items():
            buffers[name][:rows].copy_(value)
        buffers["alive"][rows:] = 0
        spoken = buffers["spoken"].new_zeros((rows, -(-words // CHUNK) * CHUNK))  # PAD is 0
        for at in range(0, words, CHUNK):
            if graph is None:
                self._advance(buffers)
            else:
                graph.replay()
            spoken[:, at : at + CHUNK].copy_(buffers["spoken"][:rows])
            if at + CHUNK < words and not buffers["alive"].any():
                break
        tokens: NDArray[np.int64] = spoken[:, :words].cpu().numpy()
        return tokens

    def _start(self, places: torch.Tensor, states: torch.Tensor | None) -> dict[str, Any]:
        import torch

        hidden, cell, keys = self._decoder.start(places, states)
        token = torch.full((len(places),), START, dtype=torch.int64, device=places.device)
        return {
            "hidden": hidden,
            "cell": cell,
            "keys": keys,
            "places": places,
            "token": token,
            "alive": torch.ones_like(token),
        }

    def _advance(self, buffers: dict[str, Any]) -> None:
        """The next CHUNK words, in place; the host reads no value."""
        import torch

        decoder = self._decoder
        hidden, cell, token, alive = (buffers[name] for name in ("hidden", "cell", "token", "alive"))
        spoken = []
        for _ in range(CHUNK):
            word = decoder.word_gates(decoder.embedding(token))
            hidden, cell, _ = decoder.step(word, hidden, cell, buffers["keys"], buffers["places"])
            token = decoder.output(hidden)[:, END:].argmax(1) + END
            spoken.append(token * alive)
            alive = alive * (token != END).to(torch.int64)
        buffers["spoken"].copy_(torch.stack(spoken, 1))
        for name, value in (("hidden", hidden), ("cell", cell), ("token", token), ("alive", alive)):
            buffers[name].copy_(value)

    def _chunk(self, size: int, places: torch.Tensor) -> tuple[dict[str, Any], Any]:
        import torch

        if self._graphs and size in self._captured:
            return self._captured[size]
        empty = places.new_zeros((size, *places.shape[1:]))
        buffers = {name: value.clone() for name, value in self._start(empty, None).items()}
        buffers["spoken"] = torch.zeros((size, CHUNK), dtype=torch.int64, device=places.device)
        if not self._graphs:
            return buffers, None
        stream = torch.cuda.Stream(places.device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(places.device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._advance(buffers)
            stream.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                self._advance(buffers)
        torch.cuda.current_stream(places.device).wait_stream(stream)
        self._captured[size] = (buffers, graph)
        return buffers, graph
