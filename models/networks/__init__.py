"""The one place that knows which networks there are. Trainer, evaluation and export only see `AUNetwork`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, unknown
from ..sentences.loading import SHIPPED
from ..settings import setting

if TYPE_CHECKING:
    from ..sentences.corpus import Corpus
    from .base import AUNetwork

KINDS = ("vlfau", "graphau")


@dataclass(frozen=True)
class NetworkChoice:
    """[network] of a configuration file."""

    network: str = setting("vlfau", "vlfau, or graphau for the head of ME-GraphAU", choices=KINDS)
    size: str = setting("paper", "a named size; --describe SIZE says what it is made of")
    weights: Path | None = setting(None, "local .safetensors file with ImageNet weights of the stem")  # noqa: RUF009
    start_from: tuple[Path, ...] = setting(
        (), "run folder whose weights this run begins with, where they fit; the mean of several", metavar="RUN"
    )
    pretrained: bool = setting(True, "ask timm for ImageNet weights where no --weights are given")
    corpus: Path | None = setting(None, "TOML file of sentences to teach; the package's own by default")  # noqa: RUF009
    subjects: bool = setting(False, "say in the face's sentence who shows it ('a woman') where the data tells")


def build(config: Mapping[str, Any]) -> AUNetwork:
    """The network that a run folder or a manifest describes."""
    match config.get("kind"):
        case "vlfau":
            from .vlfau import VLFAU

            return VLFAU.from_config(dict(config))
        case "graphau":
            from .graphau import GraphAU

            return GraphAU.from_config(dict(config))
    raise unknown("network", config.get("kind"), KINDS)


def corpus_of(choice: NetworkChoice, units: tuple[str, ...]) -> Corpus | None:
    """The sentences that the network is taught; None for a network that has none."""
    if choice.network == "graphau":
        return None
    from ..sentences import loading

    path = choice.corpus or SHIPPED
    whole = loading.load(path=path)
    for unit in units:
        if unit not in whole.units:
            remedy = f"Leave it out with --units, or describe it in a copy of {path.name} and give that with --corpus"
            raise UserError(f"{path} has no sentences for {unit}, which the data codes. {remedy}.")
    return whole.only(units)


def configure(
    choice: NetworkChoice,
    units: tuple[str, ...],
    corpus: Corpus | None,
    changes: Mapping[str, Any],
    dataset: str = "",
) -> dict[str, Any]:
    """Everything that `build` needs: the named size, the changes to it, the units and the words."""
    size = {**size_of(choice.size), **changes}
    if choice.network == "graphau":
        from .graphau import KEYS, NEIGHBOURS

        named = size_of(choice.size)
        size = {key: value for key, value in size.items() if key in KEYS or key not in named}
        size = {"neighbours": NEIGHBOURS[dataset], **size} if dataset in NEIGHBOURS else size
    config = {"kind": choice.network, **size, "units": list(units)}
    if corpus is not None:
        from ..sentences.vocabulary import build as vocabulary

        config["vocabulary"] = list(vocabulary(corpus, subjects=choice.subjects))
    return config


def settings_of_sizes() -> set[str]:
    """What a configuration file may change in a named size, of any network."""
    from .graphau import KEYS
    from .vlfau import Shape

    return {one.name for one in fields(Shape)} | set(KEYS) - {"kind", "units"}


def size_of(name: str) -> dict[str, Any]:
    """The settings of a named size."""
    from .sizes import SIZES

    if name not in SIZES:
        raise unknown("size", name, SIZES)
    return SIZES[name]


def describe(choice: NetworkChoice, changes: Mapping[str, Any]) -> str:
    """What a size is made of, for all units of the corpus; the last line is JSON."""
    from ..sentences import loading
    from .base import cost

    units = tuple(loading.load(path=choice.corpus or SHIPPED).units)
    config = configure(choice, units, corpus_of(choice, units), changes)
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
