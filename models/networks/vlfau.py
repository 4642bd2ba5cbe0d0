"""VL-FAU, the whole network, and the interface that every AU network offers to trainer, evaluation and export.

Axes: B faces, S crop side, A action units, d channels, L places, T words, R rows of (face, unit), Voc vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..sentences.vocabulary import PAD
from ..settings import read, setting
from .base import AUNetwork, Batch, Encoded, Memory
from .captioner import Decoder
from .dair import Refinement, UnitClassifiers, unit_maps, unit_vectors
from .losses import distance, multi_label, per_word, strength
from .point_classifier import PointClassifier
from .stem import LastStage, Locator, MultiScale, Stem

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Shape:
    """Every choice about VL-FAU; the defaults are the paper's."""

    stem: str = setting("swin_base_patch4_window7_224", "any timm network with four feature stages")
    stem_options: dict[str, Any] | None = None  # passed to timm
    side: int = setting(224, "crop side in pixels")
    grid: int = setting(7, "places on a side of the feature map")
    width: int = setting(512, "channels d")
    stage_width: int = setting(256, "channels of each stage before they are concatenated")
    squeeze: int = setting(16, "reduction of the channel attention")
    hidden: int = setting(512, "LSTM width")
    attention: int = setting(512, "width of the decoders' attention")
    embedding: int = setting(512, "word embedding width")
    words: int = setting(24, "longest sentence, with its end")
    dropout: float = setting(0.0, "on the decoders' output and the classifiers' input")
    msc: bool = setting(True, "multi-scale combination; without it the last stage alone")
    dair: bool = setting(True, "refinement per unit; without it all units share the pooled features")
    local_captions: bool = setting(True, "a sentence per unit")
    global_caption: bool = setting(True, "a sentence for the face, and the global AU head")
    spatial_sigmoid: bool = setting(False, "CBAM's sigmoid on the spatial map")
    state_conditioned: bool = setting(False, "decoders are told the decided states")
    caption_rows: int = setting(0, "describe only this many units of each face in a training step; 0 is all")
    intensity: float = setting(0.0, "weight of intensities as an additional target")
    landmarks: float = setting(0.0, "weight of the face's 68 points as an additional target, for renders")
    judge_points: int = setting(0, "width of a second classifier of states, on these points alone; 0 is none")


class VLFAU(AUNetwork):
    def __init__(self, units: Sequence[str], vocabulary: Sequence[str], shape: Shape) -> None:
        super().__init__()
        count, width = len(units), shape.width
        self.units, self.side, self.shape = tuple(units), shape.side, shape
        self.words = shape.words if shape.local_captions or shape.global_caption else 0
        self.stem = Stem(shape.stem, shape.stem_options)
        self.combine: nn.Module = (
            MultiScale(self.stem.channels, shape.grid, shape.stage_width, width)
            if shape.msc
            else LastStage(self.stem.channels[-1], shape.grid, width)
        )
        self.refine = Refinement(count, width, shape.squeeze, sigmoid=shape.spatial_sigmoid) if shape.dair else None
        self.dropout = nn.Dropout(shape.dropout)
        self.classify = UnitClassifiers(count, width)
        self.grade = UnitClassifiers(count, width, 1) if shape.intensity else None
        self.locate = Locator(width, shape.grid) if shape.landmarks else None
        if shape.judge_points and not shape.landmarks:
            raise UserError(
                "judge_points judges by the points that landmarks trains. Give landmarks a weight, e.g. 2.0."
            )
        self.judge_points = PointClassifier(count, shape.judge_points) if shape.judge_points else None

        def decoder() -> Decoder:
            return Decoder(
                len(vocabulary),
                width,
                hidden=shape.hidden,
                attention=shape.attention,
                embedding=shape.embedding,
                words=shape.words,
                dropout=shape.dropout,
            )

        self.describe_unit = decoder() if shape.local_captions else None
        self.describe_face = decoder() if shape.global_caption else None
        self.judge_face = nn.Linear(width, 2 * count) if shape.global_caption else None
        told = shape.state_conditioned
        self.unit_state = (
            nn.Parameter(torch.randn(count, 2, shape.hidden) * 0.5) if told and self.describe_unit else None
        )
        self.face_state = nn.Linear(count, shape.hidden) if told and self.describe_face else None

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> VLFAU:
        """{"kind", "units", "vocabulary", and the fields of Shape}"""
        table = {key: value for key, value in config.items() if key not in ("kind", "units", "vocabulary")}
        options = table.pop("stem_options", None)
        return VLFAU(config["units"], config.get("vocabulary", ()), replace(read(Shape, table), stem_options=options))

    # ---- states

    def encode(self, crops: Tensor) -> Encoded:
        visual = self.combine(self.stem(crops))
        if self.refine is not None:
            channel, spatial = self.refine(visual)
        else:
            channel = torch.ones_like(visual[:, :1, 0:1]).expand(-1, len(self.units), visual.shape[1])
            spatial = torch.ones_like(visual[:, :1]).expand(-1, len(self.units), -1)
        logits = self.classify(self.dropout(unit_vectors(visual, channel, spatial)))
        points = self.locate(visual) if self.locate is not None else None
        judged = None
        if self.judge_points is not None and points is not None:
            judged = self.judge_points(points.detach())  # it judges them and does not bend them
        # A sum would count twice how rare a unit is.
        both = logits if judged is None else (logits + judged) / 2
        return Encoded(both[..., 1] - both[..., 0], logits, visual, channel, spatial, points, judged)

    def unit_vectors(self, crops: Tensor) -> Tensor:
        return unit_vectors(*self.encode(crops).memory)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        encoded = self.encode(batch["crops"])
        memory, weights = encoded.memory, batch["unit_weights"]
        terms = {"au": multi_label(encoded.logits, batch["labels"], weights)}
        if encoded.judged is not None:
            terms["points"] = multi_label(encoded.judged, batch["labels"], weights)
        if self.grade is not None:
            graded = self.grade(unit_vectors(*memory)).squeeze(2)
            terms["intensity"] = self.shape.intensity * strength(graded, batch["intensity"])
        if encoded.points is not None:
            terms["landmarks"] = self.shape.landmarks * distance(encoded.points, batch["points"])
        if self.describe_unit is not None:
            rows = self._rows(batch["local_tokens"])
            targets = _spoken(batch["local_tokens"][rows[:, 0], rows[:, 1]])
            logits, _ = self.describe_unit.teach(unit_maps(*memory, rows), self._told(batch["active"], rows), targets)
            terms["local"] = per_word(logits, targets)
        if self.describe_face is not None and self.judge_face is not None:
            targets = _spoken(batch["global_tokens"])
            logits, attended = self._face(memory, batch, targets)
            terms["global"] = per_word(logits, targets)
            judged = torch.unflatten(self.judge_face(attended), 1, (-1, 2))
            terms["gau"] = multi_label(judged, batch["labels"], weights)
        return terms

    # ---- sentences

    def caption(self, memory: Memory, active: Tensor, rows: Tensor, beam: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        faces = memory[0].shape[0]
        if self.describe_unit is not None:
            local, _ = _say(self.describe_unit, unit_maps(*memory, rows), self._told(active, rows), beam)
        else:
            local = torch.zeros_like(rows[:, :1]).expand(-1, self.words)
        if self.describe_face is None or self.judge_face is None:
            return local, local.new_zeros((faces, self.words)), torch.zeros_like(active)
        told = self.face_state(active) if self.face_state is not None else None
        spoken, attended = _say(self.describe_face, memory[0].transpose(1, 2), told, beam)
        judged = torch.unflatten(self.judge_face(attended), 1, (-1, 2))
        return local, spoken, judged[..., 1] - judged[..., 0]

    def word_logits(self, batch: Batch) -> dict[str, Tensor]:
        memory = self.encode(batch["crops"]).memory
        found = {}
        if self.describe_unit is not None:
            rows = torch.ones_like(batch["active"]).nonzero()
            targets = batch["local_tokens"].flatten(0, 1)
            logits, _ = self.describe_unit.teach(unit_maps(*memory, rows), self._told(batch["active"], rows), targets)
            found["local"] = torch.unflatten(logits, 0, batch["local_tokens"].shape[:2])
        if self.describe_face is not None:
            found["global"] = self._face(memory, batch, batch["global_tokens"])[0]
        return found

    def _face(self, memory: Memory, batch: Batch, targets: Tensor) -> tuple[Tensor, Tensor]:
        assert self.describe_face is not None
        told = self.face_state(batch["active"]) if self.face_state is not None else None
        return self.describe_face.teach(memory[0].transpose(1, 2), told, targets)

    def _told(self, active: Tensor, rows: Tensor) -> Tensor | None:
        """(R, h) what the local decoder is told of its unit's state; None when it is told nothing."""
        if self.unit_state is None:
            return None
        face, unit = rows[:, 0], rows[:, 1]
        state = active[face, unit].unsqueeze(1)
        off, on = self.unit_state[unit, 0], self.unit_state[unit, 1]
        return off + state * (on - off)

    def _rows(self, tokens: Tensor) -> Tensor:
        """(R, 2) the units to describe in this step, `caption_rows` of each face, drawn anew each time."""
        faces, units = tokens.shape[:2]
        wanted = min(self.shape.caption_rows or units, units)
        chosen = torch.rand(faces, units, device=tokens.device).topk(wanted, 1).indices if wanted < units else None
        if chosen is None:
            return torch.ones(faces, units, device=tokens.device).nonzero()
        face = torch.arange(faces, device=tokens.device).unsqueeze(1).expand_as(chosen)
        return torch.stack([face.flatten(), chosen.flatten()], 1)


def _say(decoder: Decoder, places: Tensor, told: Tensor | None, beam: int) -> tuple[Tensor, Tensor]:
    return decoder.speak(places, told) if beam == 1 else decoder.beam(places, told, beam)


def _spoken(tokens: Tensor) -> Tensor:
    """(R, T) without the columns in which every sentence is over: each would cost a step and teach nothing."""
    return tokens[:, : max(1, int((tokens != PAD).any(0).sum()))]
