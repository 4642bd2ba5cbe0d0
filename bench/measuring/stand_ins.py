"""Plain replacements for the few functions of timm, safetensors, OpenCV and msgspec that the GPU report needs.

The two stems have the shapes, parameters and products of timm's Swin-Base and ResNet (a test compares them), so times
are comparable; weights are random either way.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def install() -> list[str]:
    """Replaces each module that is missing. Returns their names."""
    plain = {"timm": _timm, "safetensors": _safetensors, "cv2": _cv2, "msgspec": _msgspec}
    missing = [name for name in plain if name not in sys.modules and find_spec(name) is None]
    for name in missing:
        plain[name]()
    return missing


def _timm() -> None:
    def create_model(name: str, pretrained: bool = False, features_only: bool = True, **options: Any) -> nn.Module:
        if name == "swin_base_patch4_window7_224":
            return Swin()
        if name == "resnet18":
            return ResNet(options.get("channels", (64, 128, 256, 512)))
        raise ValueError(f"without timm there are swin_base_patch4_window7_224 and resnet18, not {name}")

    sys.modules["timm"] = module = ModuleType("timm")
    module.create_model = create_model  # type: ignore[attr-defined]


class Swin(nn.Module):
    """Swin-Base: windows of 7 x 7 places that are shifted by 3 in every second block, four stages."""

    output_fmt = "NHWC"

    def __init__(self, width: int = 128, depths: Sequence[int] = (2, 2, 18, 2), heads: int = 4, side: int = 56) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, width, 4, 4), nn.LayerNorm(width)
        widths = [width << stage for stage in range(len(depths))]
        self.merges = nn.ModuleList(Merge(one) for one in widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(*[Block(w, heads << k, side >> k, 3 * (i % 2)) for i in range(depth)])
            for k, (w, depth) in enumerate(zip(widths, depths))
        )
        self.feature_info = SimpleNamespace(channels=lambda: widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = self.norm(self.patches(x).permute(0, 2, 3, 1)), []
        for k, stage in enumerate(self.stages):
            x = stage(self.merges[k - 1](x) if k else x)
            maps.append(x)
        return maps


class Merge(nn.Module):
    """Four neighbours become one place of twice the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        side, width = int(x.shape[1]) // 2, int(x.shape[3])
        x = x.reshape(-1, side, 2, side, 2, width).permute(0, 1, 3, 4, 2, 5).flatten(3)
        merged: Tensor = self.reduce(self.norm(x))
        return merged


class Block(nn.Module):
    which: Tensor
    mask: Tensor

    def __init__(self, width: int, heads: int, side: int, shift: int, window: int = 7) -> None:
        super().__init__()
        self.heads, self.side, self.window = heads, side, window
        self.shift = shift if side > window else 0
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.grow, self.shrink = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.bias = nn.Parameter(0.02 * torch.randn((2 * window - 1) ** 2, heads))
        at = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)  # (2, L)
        apart = at[:, :, None] - at[:, None] + window - 1
        self.register_buffer("which", apart[0] * (2 * window - 1) + apart[1], persistent=False)
        self.register_buffer("mask", self._mask(), persistent=False)

    def _mask(self) -> Tensor:
        """(windows, L, L): places that were not neighbours before the shift do not attend to each other."""
        part = torch.zeros(self.side, self.side)
        edges = (0, self.side - self.window, self.side - self.shift, self.side)
        for i in range(3):
            for j in range(3):
                part[edges[i] : edges[i + 1], edges[j] : edges[j + 1]] = 3 * i + j
        places = self._windows(part[None, :, :, None]).squeeze(2)  # (windows, L)
        return torch.where(places[:, None] == places[:, :, None], 0.0, -100.0) * bool(self.shift)

    def _windows(self, x: Tensor) -> Tensor:
        """(B, h, h, d) -> (B * windows, L, d)"""
        count, w, width = self.side // self.window, self.window, int(x.shape[3])
        return x.reshape(-1, count, w, count, w, width).transpose(2, 3).reshape(-1, w * w, width)

    def forward(self, x: Tensor) -> Tensor:
        count, w, width = self.side // self.window, self.window, int(x.shape[3])
        shifted = torch.roll(self.norm1(x), (-self.shift, -self.shift), (1, 2))
        places = self._windows(shifted)
        q, k, v = self.qkv(places).reshape(-1, w * w, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        bias = self.bias[self.which].permute(2, 0, 1)  # (heads, L, L)
        scores = (q * (width // self.heads) ** -0.5) @ k.transpose(2, 3) + bias
        masked = scores.unflatten(0, (-1, count * count)) + self.mask.to(scores.dtype)[:, None]
        seen = (masked.flatten(0, 1).softmax(3) @ v).transpose(1, 2).reshape(-1, w * w, width)
        back = self.out(seen).reshape(-1, count, count, w, w, width).transpose(2, 3)
        x = x + torch.roll(back.reshape(-1, self.side, self.side, width), (self.shift, self.shift), (1, 2))
        summed: Tensor = x + self.shrink(F.gelu(self.grow(self.norm2(x))))
        return summed


class ResNet(nn.Module):
    """ResNet-18 of any widths; the map before its stages is a feature, too."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.stages = nn.ModuleList(
            nn.Sequential(Basic(before, width, 1 if k == 0 else 2), Basic(width, width, 1))
            for k, (before, width) in enumerate(zip((64, *widths), widths))
        )
        self.feature_info = SimpleNamespace(channels=lambda: [64, *widths])

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [self.first(x)]
        x = F.max_pool2d(maps[0], 3, 2, 1)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Basic(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        same = before == width and stride == 1
        self.beside: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(inner)) + self.beside(x))


# ---- files and images

KINDS = {"F32": torch.float32, "F16": torch.float16, "I64": torch.int64}


def _safetensors() -> None:
    """The format is eight bytes of length, a JSON header and the numbers."""

    def save(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
        names = {kind: name for name, kind in KINDS.items()}
        header: dict[str, Any] = {"__metadata__": dict(metadata or {})}
        parts: list[bytes] = []
        at = 0
        for name, tensor in tensors.items():
            body = tensor.contiguous().numpy().tobytes()
            places = [at, at + len(body)]
            header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": places}
            parts, at = [*parts, body], at + len(body)
        text = json.dumps(header).encode()
        return b"".join([len(text).to_bytes(8, "little"), text, *parts])

    def load_file(path: str | Path) -> dict[str, Tensor]:
        whole = bytearray(Path(path).read_bytes())
        length = int.from_bytes(whole[:8], "little")
        tensors = {}
        for name, entry in json.loads(whole[8 : 8 + length]).items():
            if name != "__metadata__":
                begin, end = (8 + length + place for place in entry["data_offsets"])
                flat = torch.frombuffer(whole[begin:end] or bytearray(8), dtype=KINDS[entry["dtype"]])
                tensors[name] = flat[: int(np.prod(entry["shape"]))].reshape(entry["shape"]).clone()
        return tensors

    sys.modules["safetensors"] = outer = ModuleType("safetensors")
    sys.modules["safetensors.torch"] = inner = ModuleType("safetensors.torch")
    outer.SafetensorError = ValueError  # type: ignore[attr-defined]
    outer.torch, inner.save, inner.load_file = inner, save, load_file  # type: ignore[attr-defined]


def _cv2() -> None:
    """Enough to draw images with structure: resizing and filled ellipses."""

    def resize(picture: Any, size: tuple[int, int], interpolation: int = 0) -> Any:
        rows, columns = (np.arange(n) * picture.shape[k] // n for k, n in ((0, size[1]), (1, size[0])))
        return np.ascontiguousarray(picture[rows][:, columns])

    def ellipse(
        picture: Any, centre: Any, axes: Any, turn: float, begin: float, end: float, colour: Any, thickness: int = 1
    ) -> Any:
        y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
        picture[((x - centre[0]) / axes[0]) ** 2 + ((y - centre[1]) / axes[1]) ** 2 <= 1] = colour
        return picture

    def circle(picture: Any, centre: Any, radius: int, colour: Any, thickness: int = 1) -> Any:
        return ellipse(picture, centre, (radius, radius), 0, 0, 360, colour)

    sys.modules["cv2"] = module = ModuleType("cv2")
    module.__dict__.update(resize=resize, ellipse=ellipse, circle=circle, INTER_CUBIC=2)


def _msgspec() -> None:
    """Only the conversion of a manifest that this process wrote: nothing is checked."""

    class ValidationError(ValueError): ...

    def convert(table: Mapping[str, Any], kind: Callable[..., Any]) -> Any:
        return kind(**{name: _tuples(value) for name, value in table.items()})

    sys.modules["msgspec"] = module = ModuleType("msgspec")
    module.convert, module.ValidationError = convert, ValidationError  # type: ignore[attr-defined]


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
