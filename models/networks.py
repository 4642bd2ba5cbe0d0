"""The one place that knows which networks there are. Trainer, evaluation and export only see `AUNetwork`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import unknown
from .settings import setting

if TYPE_CHECKING:
    from .corpus import Corpus
    from .network import AUNetwork

KINDS = ("vlfau", "graphau")


@dataclass(frozen=True)
class NetworkChoice:
    """[network] of a configuration file."""

    network: str = setting("vlfau", "vlfau, or graphau for the head of ME-GraphAU", choices=KINDS)
    size: str = setting("paper", "a named size; --describe SIZE says what it is made of")
    weights: Path | None = setting(None, "local .safetensors file with ImageNet weights of the stem")  # noqa: RUF009
    start_from: Path | None = setting(None, "run folder whose weights this run begins with, where they fit")  # noqa: RUF009
    pretrained: bool = setting(True, "ask timm for ImageNet weights where no --weights are given")


def build(config: Mapping[str, Any]) -> AUNetwork:
    """The network that a run folder or a manifest describes."""
    match config.get("kind"):
        case "vlfau":
            from .network import VLFAU

            return VLFAU.from_config(dict(config))
        case "graphau":
            from .graphau import GraphAU

            return GraphAU.from_config(dict(config))
    raise unknown("network", config.get("kind"), KINDS)


def configure(
    choice: NetworkChoice, units: tuple[str, ...], corpus: Corpus | None, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that `build` needs: the named size, the changes to it, the units and the words."""
    size = {**size_of(choice.size), **changes}
    if choice.network == "graphau":
        from .graphau import KEYS

        named = size_of(choice.size)
        size = {key: value for key, value in size.items() if key in KEYS or key not in named}
    config = {"kind": choice.network, **size, "units": list(units)}
    if corpus is not None:
        from .vocabulary import build as vocabulary

        config["vocabulary"] = list(vocabulary(corpus))
    return config


def size_of(name: str) -> dict[str, Any]:
    """The settings of a named size."""
    from .sizes import SIZES

    if name not in SIZES:
        raise unknown("size", name, SIZES)
    return SIZES[name]


def describe(choice: NetworkChoice, changes: Mapping[str, Any]) -> str:
    """What a size is made of, for all units of the corpus; the last line is JSON."""
    from . import texts
    from .network import cost

    corpus = texts.load()
    config = configure(choice, tuple(corpus.units), corpus if choice.network == "vlfau" else None, changes)
    network = build(config)
    found = cost(network)
    lines = [f"{choice.network}, size {choice.size}, {len(network.units)} action units"]
    for name, part in network.named_children():
        count = sum(parameter.numel() for parameter in part.parameters())
        lines.append(f"  {name:16} {count / 1e6:8.3f} M parameters  {type(part).__name__}")
    settings = {key: value for key, value in config.items() if key not in ("units", "vocabulary")}
    lines += [f"  {key} = {value}" for key, value in settings.items()]
    facts = {"size": choice.size, "network": choice.network, "units": len(network.units), "side": network.side, **found}
    return "\n".join([*lines, json.dumps(facts)])
