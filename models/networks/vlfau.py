"""VL-FAU: action units, a sentence for each of them and one for the face.

Axes: B faces, S crop side, A action units, d channels, L places, T words, R rows of (face, unit), Voc vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..sentences.vocabulary import PAD
from ..settings import read, setting
from .base import AUNetwork, Batch, Encoded, Memory, Speaker
from .captioner import SentenceDecoder
from .dair import Refinement, UnitClassifiers, unit_maps, unit_vectors
from .losses import distance, multi_label, per_word, strength
from .point_classifier import PointClassifier
from .stem import LastStage, Locator, MultiScale, Stem


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
    words: int = setting(24, "tokens of the longest sentence, with its end")
    dropout: float = setting(0.0, "on the decoders' output and the classifiers' input")
    msc: bool = setting(True, "multi-scale combination; without it the last stage alone")
    dair: bool = setting(True, "refinement per unit; without it all units share the pooled features")
    local_captions: bool = setting(True, "a sentence per unit")
    global_caption: bool = setting(True, "a sentence for the face, and the global AU head")
    spatial_sigmoid: bool = setting(False, "CBAM's sigmoid on the spatial map")
    state_conditioned: bool = setting(False, "sentences depend on the decided states")
    caption_rows: int = setting(0, "describe only this many units of each face in a training step; 0: all")
    intensity: float = setting(0.0, "weight of intensities as an additional target")
    landmarks: float = setting(0.0, "weight of the face's 68 points as an additional target, for renders")
    judge_points: int = setting(0, "width of a second classifier of states, on these points alone; 0: none")


class VLFAU(AUNetwork):
    SETTINGS: ClassVar[frozenset[str]] = frozenset(field.name for field in fields(Shape))
    SPEAKS: ClassVar[bool] = True
    SENTENCE_PARTS: ClassVar[tuple[str, ...]] = (
        "describe_unit", "describe_face", "judge_face", "unit_state", "face_state"
    )  # fmt: skip
    AFTER_ENCODER: ClassVar[tuple[str, ...]] = (*SENTENCE_PARTS, "judge_points")

    def __init__(self, units: Sequence[str], vocabulary: Sequence[str], shape: Shape) -> None:
        super().__init__()
        count, width = len(units), shape.width
        self.units, self.side, self.shape = tuple(units), shape.side, shape
        self.words = shape.words if shape.local_captions or shape.global_caption else 0
        self.state_conditioned = shape.state_conditioned
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
            raise UserError("judge_points needs the points that landmarks trains. Give landmarks a weight, e.g. 2.0.")
        self.judge_points = PointClassifier(count, shape.judge_points) if shape.judge_points else None

        def decoder() -> SentenceDecoder:
            return SentenceDecoder(
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
        conditioned = shape.state_conditioned
        self.unit_state = (
            nn.Parameter(torch.randn(count, 2, shape.hidden) * 0.5) if conditioned and self.describe_unit else None
        )
        self.face_state = nn.Linear(count, shape.hidden) if conditioned and self.describe_face else None

    @classmethod
    def suited(cls, size: Mapping[str, Any], dataset: str, points: bool) -> dict[str, Any]:
        """Without them there is no learning where the points lie, and nothing for their classifier to learn from."""
        off = {} if points else {"landmarks": 0.0, "judge_points": 0}
        return dict(size) | {name: value for name, value in off.items() if name in size}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> VLFAU:
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
        by_points = None
        if self.judge_points is not None and points is not None:
            by_points = self.judge_points(points.detach())  # no gradient flows back into the points
        # A sum would apply each unit's prior twice.
        both = logits if by_points is None else (logits + by_points) / 2
        return Encoded(both[..., 1] - both[..., 0], logits, visual, channel, spatial, points, by_points)

    def unit_vectors(self, crops: Tensor) -> Tensor:
        return unit_vectors(*self.encode(crops).memory)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        encoded = self.encode(batch["crops"])
        memory, weights = encoded.memory, batch["unit_weights"]
        terms = {"au": multi_label(encoded.logits, batch["labels"], weights)}
        if encoded.point_logits is not None:
            terms["points"] = multi_label(encoded.point_logits, batch["labels"], weights)
        if self.grade is not None:
            grades = self.grade(unit_vectors(*memory)).squeeze(2)
            terms["intensity"] = self.shape.intensity * strength(grades, batch["intensity"])
        if encoded.points is not None:
            terms["landmarks"] = self.shape.landmarks * distance(encoded.points, batch["points"])
        if self.describe_unit is not None:
            rows = self._rows(batch["local_tokens"])
            targets = _without_padding(batch["local_tokens"][rows[:, 0], rows[:, 1]])
            states = self._unit_states(batch["active"], rows)
            logits, _ = self.describe_unit.teach(unit_maps(*memory, rows), states, targets)
            terms["local"] = per_word(logits, targets)
        if self.describe_face is not None and self.judge_face is not None:
            targets = _without_padding(batch["global_tokens"])
            logits, attended = self._teach_face(memory, batch, targets)
            terms["global"] = per_word(logits, targets)
            by_face = torch.unflatten(self.judge_face(attended), 1, (-1, 2))
            terms["gau"] = multi_label(by_face, batch["labels"], weights)
        return terms

    def load_imagenet(self, path: Path | None, download: bool) -> str:
        return self.stem.load_imagenet(path, download)

    def compile_encoder(self) -> None:
        """The stem alone: sentences differ in length from batch to batch, and a compiled decoder is compiled again for
        each length (bench/training.py speed: minutes more, and slower steps in the end)."""
        self.stem.compile()

    # ---- sentences

    def caption(self, memory: Memory, active: Tensor, rows: Tensor, beam: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        speakers = self.speakers(memory, active, rows)
        if "local" in speakers:
            local, _ = _speak(speakers["local"], beam)
        else:
            local = torch.zeros_like(rows[:, :1]).expand(-1, self.words)
        if "global" not in speakers or self.judge_face is None:
            return local, local.new_zeros((memory[0].shape[0], self.words)), torch.zeros_like(active)
        whole, attended = _speak(speakers["global"], beam)
        by_face = torch.unflatten(self.judge_face(attended), 1, (-1, 2))
        return local, whole, by_face[..., 1] - by_face[..., 0]

    def speakers(self, memory: Memory, active: Tensor, rows: Tensor) -> dict[str, Speaker]:
        speakers = {}
        if self.describe_unit is not None:
            speakers["local"] = Speaker(self.describe_unit, unit_maps(*memory, rows), self._unit_states(active, rows))
        if self.describe_face is not None:
            speakers["global"] = Speaker(self.describe_face, memory[0].transpose(1, 2), self._face_states(active))
        return speakers

    def word_logits(self, batch: Batch) -> dict[str, Tensor]:
        memory = self.encode(batch["crops"]).memory
        words = {}
        if self.describe_unit is not None:
            rows = torch.ones_like(batch["active"]).nonzero()
            targets, states = batch["local_tokens"].flatten(0, 1), self._unit_states(batch["active"], rows)
            logits, _ = self.describe_unit.teach(unit_maps(*memory, rows), states, targets)
            words["local"] = torch.unflatten(logits, 0, batch["local_tokens"].shape[:2])
        if self.describe_face is not None:
            words["global"] = self._teach_face(memory, batch, batch["global_tokens"])[0]
        return words

    def _teach_face(self, memory: Memory, batch: Batch, targets: Tensor) -> tuple[Tensor, Tensor]:
        assert self.describe_face is not None
        return self.describe_face.teach(memory[0].transpose(1, 2), self._face_states(batch["active"]), targets)

    def _face_states(self, active: Tensor) -> Tensor | None:
        """(B, h)"""
        return self.face_state(active) if self.face_state is not None else None

    def _unit_states(self, active: Tensor, rows: Tensor) -> Tensor | None:
        """(R, h)"""
        if self.unit_state is None:
            return None
        face, unit = rows[:, 0], rows[:, 1]
        state = active[face, unit].unsqueeze(1)
        off, on = self.unit_state[unit, 0], self.unit_state[unit, 1]
        return off + state * (on - off)

    def _rows(self, tokens: Tensor) -> Tensor:
        """(R, 2) the units to describe in this step: `caption_rows` of each face, drawn at random."""
        faces, units = tokens.shape[:2]
        count = min(self.shape.caption_rows or units, units)
        if count == units:
            return torch.ones(faces, units, device=tokens.device).nonzero()
        chosen = torch.rand(faces, units, device=tokens.device).topk(count, 1).indices
        face = torch.arange(faces, device=tokens.device).unsqueeze(1).expand_as(chosen)
        return torch.stack([face.flatten(), chosen.flatten()], 1)


def _speak(speaker: Speaker, beam: int) -> tuple[Tensor, Tensor]:
    decoder, places, states = speaker
    return decoder.speak(places, states) if beam == 1 else decoder.beam(places, states, beam)


def _without_padding(tokens: Tensor) -> Tensor:
    """(R, T) without the last columns, where every sentence has ended: each would cost a step and teach nothing."""
    return tokens[:, : max(1, int((tokens != PAD).any(0).sum()))]
