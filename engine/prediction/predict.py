"""The third stage: aligned faces -> action units and sentences, in batches over faces, frames and streams.

Which units are active and when a sentence is due is decided in `decide.py`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlfau.models.runtimes.base import Explanation, Prediction, Runtime

from .. import wire
from ..packets import Ended, Faces, Outcome
from ..pipeline import waiting
from ..settings import PredictSettings
from .decide import Decision, TrackState

REMEMBERED = 256  # tracks of a stream whose state is kept


@dataclass(slots=True, eq=False)
class Job:
    """One face of one frame while it is processed."""

    track: TrackState
    decision: Decision
    row: int  # in the prediction
    explanation: Explanation | None = None


class Predictor:
    """Used on one thread, the one that opened the runtime.

    `late_text` names the streams whose action units must not wait for sentences: their sentences appear one report
    later, once the runtime is ready to explain. In all other streams they are in the report of their own frame.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: PredictSettings,
        *,
        all_units: bool = False,
        late_text: Collection[str] = (),
    ) -> None:
        self.runtime, self.settings = runtime, settings
        self._all_units, self._late = all_units, frozenset(late_text)
        own = runtime.bundle.manifest.baseline_seconds
        self._baseline_s = own if settings.baseline is None else settings.baseline
        self._tracks: dict[str, dict[int, TrackState]] = {}

    def forget(self, stream: str) -> None:
        self._tracks.pop(stream, None)

    def outcomes(self, group: Sequence[Faces]) -> Iterator[Outcome]:
        """One outcome per frame, in order within each stream; streams that do not wait for sentences come first."""
        crops = [faces.crops[faces.valid] for faces in group if faces.valid.any()]
        prediction = self.runtime.predict(np.concatenate(crops)) if crops else None
        jobs = self._decide(group, prediction)
        predicted = time.monotonic_ns()
        for faces, own in zip(group, jobs):
            if faces.stamp.stream in self._late:
                yield self._outcome(faces, own, predicted, predicted)
        self._explain([job for own in jobs for job in own if job is not None and job.decision.explain], prediction)
        explained = time.monotonic_ns()
        for faces, own in zip(group, jobs):
            if faces.stamp.stream in self._late:
                _say(own, faces.stamp.index)
            else:
                yield self._outcome(faces, own, predicted, explained)

    def _decide(self, group: Sequence[Faces], prediction: Prediction | None) -> list[list[Job | None]]:
        """Per frame and face; None for a face that is not valid."""
        jobs: list[list[Job | None]] = []
        row = 0
        for faces in group:
            own: list[Job | None] = []
            for track, valid in zip(faces.tracks.tolist(), faces.valid.tolist()):
                if not valid or prediction is None:
                    own.append(None)
                    continue
                state = self._track(faces.stamp.stream, track)
                decision = state.decide(prediction.log_odds[row] / self.runtime.temperatures, faces.stamp.pts)
                if decision.explain and faces.stamp.stream in self._late and not self.runtime.ready_to_explain:
                    decision.explain = False  # still due in the next frame: units do not wait for graphs to compile
                if decision.explain:
                    state.describe(decision.states, faces.stamp.pts)
                own.append(Job(state, decision, row))
                row += 1
            jobs.append(own)
        return jobs

    def _track(self, stream: str, track: int) -> TrackState:
        tracks = self._tracks.setdefault(stream, {})
        state = tracks.pop(track, None)
        if state is None:
            state = TrackState(self.settings, self.runtime.thresholds, self._baseline_s)
            if len(tracks) >= REMEMBERED:
                del tracks[next(iter(tracks))]
        tracks[track] = state  # the newest at the end
        return state

    def _explain(self, jobs: Sequence[Job], prediction: Prediction | None) -> None:
        if not jobs or prediction is None:
            return
        active: NDArray[np.bool_] = np.stack([job.decision.states for job in jobs])
        units = np.ones_like(active) if self._all_units else active
        for job, explanation in zip(jobs, self.runtime.explain(prediction, [job.row for job in jobs], active, units)):
            job.explanation = explanation

    def _outcome(self, faces: Faces, jobs: Sequence[Job | None], predicted: int, explained: int) -> Outcome:
        if faces.stamp.stream not in self._late:
            _say(jobs, faces.stamp.index)
        return Outcome(
            faces.stamp,
            [self._face(faces, i, job) for i, job in enumerate(jobs)],
            detect_ms=faces.detect_ms,
            align_ms=faces.align_ms,
            predict_ms=(predicted - faces.ready_ns) / 1e6,
            explain_ms=(explained - predicted) / 1e6,
            pixels=faces.pixels,
        )

    def _face(self, faces: Faces, i: int, job: Job | None) -> wire.Face:
        yaw, pitch, roll = faces.poses[i].tolist()
        state, decision = (job.track, job.decision) if job is not None else (None, None)
        return wire.Face(
            track=int(faces.tracks[i]),
            box=wire.box(faces.boxes[i]),
            score=round(float(faces.scores[i]), 4),
            landmarks=wire.points(faces.landmarks[i]),
            pose=wire.pose(yaw, pitch, roll),
            valid=job is not None,
            aus={} if decision is None else wire.units(self.runtime.units, decision.probabilities, decision.states),
            text_frame=None if state is None else state.text_frame,
            text=None if state is None else state.text,
            why={} if state is None else state.why,
            quality=round(float(faces.quality[i]), 3),
            baseline=decision is not None and decision.rested,
        )


def _say(jobs: Sequence[Job | None], frame: int) -> None:
    for job in jobs:
        if job is not None and job.explanation is not None and job.explanation.text:
            job.track.say(frame, job.explanation.text, job.explanation.why)


def predict_faces(items: Iterable[Faces | Ended], predictor: Predictor) -> Generator[Outcome | Ended, None, None]:
    """The stage. All queued frames go through the network together."""
    for group in waiting(items, limit=predictor.runtime.max_batch):
        faces: list[Faces] = []
        for item in group:
            if isinstance(item, Faces):
                faces.append(item)
                continue
            yield from predictor.outcomes(faces)
            faces = []
            predictor.forget(item.stream)
            yield item
        if faces:
            yield from predictor.outcomes(faces)
