"""The reference: the bundle's own weights in the modules that were trained. On a GPU in half precision and CUDA graphs.

States and sentences are separate calls, so that states are published first. Tokens stay on the device until all are
spoken; once per chunk of words the host reads one flag, whether all rows have ended. The captured path has not run on a
GPU yet; its plain twin has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..bundle import Bundle
from ..errors import UserError
from ..runtime import END, MEMORY, START
from .cuda_buckets import SIZES, Buckets
from .graphs import cpu_threads

if TYPE_CHECKING:
    import torch

    from ..captioner import Decoder
    from ..network import AUNetwork

CHUNK = 8  # words between two looks at the "all ended" flag


class Torch:
    name = "torch"
    max_batch = SIZES[-1]

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str | None = None,
        precision: str | None = None,
        threads: int | None = None,
        graphs: bool = True,
        compiled: bool = False,
    ) -> None:
        try:
            import torch
        except ImportError as error:
            raise UserError(f"PyTorch cannot be imported ({error}). Run: pip install 'vlfau-stream[train]'") from None
        self._torch = torch
        self._at = _device(device)
        on_gpu = self._at.type == "cuda"
        self.device = f"{self._at} {torch.cuda.get_device_name(self._at)}" if on_gpu else "CPU"
        self.precision = precision or ("fp16" if on_gpu else "fp32")
        kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, **({"fp16": torch.float16} if on_gpu else {})}
        if self.precision not in kinds:
            raise UserError(f"PyTorch on {self._at.type} runs {', '.join(kinds)} here, not {self.precision}.")
        if threads is not None or not on_gpu:
            torch.set_num_threads(cpu_threads(threads))
        self._kind = kinds[self.precision]
        self._network = load_network(bundle, self._at, self._kind)
        encode: Any = self._encode
        if compiled:
            encode = torch.compile(self._encode, dynamic=False)
        shape = (bundle.manifest.side, bundle.manifest.side, 3)
        self._buckets = Buckets(encode, lambda size: {"crops": ((size, *shape), torch.uint8)}, self._at, graphs=graphs)
        self._words = Words(self._network, graphs=graphs and on_gpu) if bundle.has_captions else None

    def encode(self, crops: NDArray[np.uint8]) -> dict[str, Any]:
        keep = MEMORY if self._words is not None else ()
        with self._torch.inference_mode():
            host, kept = self._buckets({"crops": crops}, len(crops), ["log_odds"], keep)
        return {**host, **kept}

    def caption(self, memory: dict[str, Any], active: NDArray[np.float32], rows: NDArray[np.int64]) -> dict[str, Any]:
        if self._words is None:
            raise UserError("This bundle has no captions. Export a network with sentences, or ask for none.")
        given = self._torch.from_numpy(np.ascontiguousarray(active)).to(self._at, self._kind)
        asked = self._torch.from_numpy(np.ascontiguousarray(rows)).to(self._at)
        with self._torch.inference_mode():
            local, whole = self._words(memory, given, asked)
        return {"local_tokens": local, "global_tokens": whole}

    def take(self, memory: dict[str, Any], faces: Sequence[int]) -> dict[str, Any]:
        chosen = self._torch.tensor(list(faces), device=self._at)
        return {name: memory[name][chosen] for name in MEMORY}

    def join(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {name: self._torch.cat([part[name] for part in parts]) for name in MEMORY}

    def close(self) -> None:
        self._buckets.close()
        self._words = None

    def _encode(self, given: dict[str, Any]) -> dict[str, Any]:
        encoded = self._network.encode(given["crops"])
        found = {"log_odds": encoded.log_odds.float()}
        if self._network.has_captions:
            found |= dict(zip(MEMORY, encoded.memory))
        return found


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
        from ..dair import unit_maps

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


def load_network(bundle: Bundle, device: torch.device, kind: torch.dtype) -> AUNetwork:
    """The trained network, channels last; normalisation of the pixels stays in FP32."""
    import torch

    from ..checkpoint import load_tensors
    from ..networks import build

    network = build(bundle.manifest.network)
    network.load_state_dict(load_tensors(bundle.path("weights.safetensors")))
    network = network.eval().to(device)
    buffers = dict(network.stem.named_buffers(recurse=False))
    network = network.to(kind).to(memory_format=torch.channels_last)
    for name, value in buffers.items():
        setattr(network.stem, name, value)

    def narrow(_: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(one.to(kind).contiguous(memory_format=torch.channels_last) for one in given)

    network.stem.body.register_forward_pre_hook(narrow)
    network.requires_grad_(False)
    return network


def _device(asked: str | None) -> torch.device:
    import torch

    if asked is None:
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked.lower())
    except RuntimeError:
        raise UserError(f"PyTorch does not know the device '{asked}'. Choose cpu or cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"PyTorch sees no CUDA GPU here, so '{asked}' cannot be used. Use the CPU.")
    return torch.device("cuda:0") if device.type == "cuda" and device.index is None else device
