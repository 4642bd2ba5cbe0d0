"""Opens networks: the table of kinds, their settings and sizes. Everything else only sees `AUNetwork`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import UserError, unknown
from ..sentences.loading import SHIPPED
from ..settings import setting

if TYPE_CHECKING:
    from ..sentences.corpus import Corpus
    from .base import AUNetwork


class Kind(NamedTuple):
    module: str  # of this folder, imported when a network of the kind is opened
    name: str  # of the class in it
    about: str


KINDS = {
    "vlfau": Kind("vlfau", "VLFAU", "VL-FAU, with sentences"),
    "graphau": Kind("graphau", "GraphAU", "the graph head of ME-GraphAU"),
}


@dataclass(frozen=True)
class NetworkChoice:
    """[network] of a configuration file."""

    network: str = setting(
        "vlfau", "; ".join(f"{name}: {kind.about}" for name, kind in KINDS.items()), choices=tuple(KINDS)
    )
    size: str = setting("paper", "a named size; --describe SIZE prints what it is made of")
    weights: Path | None = setting(None, "local .safetensors file with ImageNet weights of the stem")  # noqa: RUF009
    start_from: tuple[Path, ...] = setting(
        (), "run folder whose weights are the first ones, as far as they fit; the mean of several", metavar="RUN"
    )
    pretrained: bool = setting(True, "get ImageNet weights from timm if there is no --weights")
    corpus: Path | None = setting(None, "TOML file of sentences to teach; the package's own by default")  # noqa: RUF009
    subjects: bool = setting(False, "name the subject in the face's sentence ('a woman') if the data says who it is")


def build(config: Mapping[str, Any]) -> AUNetwork:
    """The network that a run folder or a manifest describes."""
    return _class(config.get("kind")).from_config(config)


def corpus_of(choice: NetworkChoice, units: tuple[str, ...]) -> Corpus | None:
    """The sentences to teach; None for a network that has none."""
    if not _class(choice.network).SPEAKS:
        return None
    from ..sentences import loading

    path = choice.corpus or SHIPPED
    whole = loading.load(path=path)
    for unit in units:
        if unit not in whole.units:
            raise UserError(
                f"{path} has no sentences for {unit}, which the data codes. Exclude it with --units, or describe it in "
                f"a copy of {path.name} and give that with --corpus."
            )
    return whole.only(units)


def configure(
    choice: NetworkChoice,
    units: tuple[str, ...],
    corpus: Corpus | None,
    changes: Mapping[str, Any],
    dataset: str = "",
    *,
    points: bool = True,
) -> dict[str, Any]:
    """All that `build` needs: the named size, suited to the data, the changes to it, the units and the vocabulary."""
    kind, named = _class(choice.network), size_of(choice.size)
    size = kind.suited(named, dataset, points) | dict(changes)
    size = {key: value for key, value in size.items() if key in kind.SETTINGS or key not in named}
    config = {"kind": choice.network, **size, "units": list(units)}
    if corpus is not None:
        from ..sentences.vocabulary import build as vocabulary

        config["vocabulary"] = list(vocabulary(corpus, subjects=choice.subjects))
    return config


def side_of(choice: NetworkChoice, changes: Mapping[str, Any]) -> int:
    """The crop side, which is needed before the units are known."""
    return int({"side": _class(choice.network).SIDE, **size_of(choice.size), **changes}["side"])


def settings_of_sizes() -> set[str]:
    """What a configuration file may change in a named size, of any network."""
    return {name for kind in KINDS for name in _class(kind).SETTINGS}


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
    lines = [f"{choice.network}, size {choice.size}, {len(network.units)} action units"]
    for name, part in network.named_children():
        count = sum(parameter.numel() for parameter in part.parameters())
        lines.append(f"  {name:16} {count / 1e6:8.3f} M parameters  {type(part).__name__}")
    settings = {key: value for key, value in config.items() if key not in ("units", "vocabulary")}
    lines += [f"  {key} = {value}" for key, value in settings.items()]
    facts = {"size": choice.size, "network": choice.network, "units": len(network.units), "side": network.side}
    return "\n".join([*lines, json.dumps(facts | cost(network))])


def _class(name: object) -> type[AUNetwork]:
    if name not in KINDS:
        raise unknown("network", name, KINDS)
    kind = KINDS[str(name)]
    found: type[AUNetwork] = getattr(import_module(f".{kind.module}", __name__), kind.name)
    return found
