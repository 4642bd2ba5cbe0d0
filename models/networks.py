"""The one place that knows which networks there are. Trainer, evaluation and export only see `AUNetwork`."""

from __future__ import annotations

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
    from .sizes import SIZES
    from .vocabulary import build as vocabulary

    if choice.size not in SIZES:
        raise unknown("size", choice.size, SIZES)
    config = {"kind": choice.network, **SIZES[choice.size], **changes, "units": list(units)}
    if corpus is not None:
        config["vocabulary"] = list(vocabulary(corpus))
    return config


def side_of(choice: NetworkChoice, changes: Mapping[str, Any]) -> int:
    from .sizes import SIZES

    return int({**SIZES[choice.size], **changes}["side"])


def load_stem(network: AUNetwork, choice: NetworkChoice) -> str:
    """ImageNet weights where they can be had; what was done, in words."""
    return "from scratch"


def describe(size: str) -> str:
    return ""
