"""Each face gets its own result back from a batch; sentences appear when and where they should."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import PropertyMock, patch

import numpy as np
import pytest
from numpy.typing import NDArray

from vlfau.engine.packets import Ended, Faces, Outcome, Stamp
from vlfau.engine.pipeline import Pipeline, read
from vlfau.engine.prediction.predict import REMEMBERED, Predictor, predict_faces
from vlfau.engine.settings import PredictSettings
from vlfau.models.bundle import Bundle, Manifest
from vlfau.models.runtimes.base import Executor, Runtime

UNITS, SIDE = ("AU01", "AU04", "AU12"), 8
VOCABULARY = ("<pad>", "<start>", "<end>", "unit", "global", *(str(i) for i in range(256)))


class MeanExecutor(Executor):
    """Log-odds grow with the mean of the crop, so a result can be traced to its crop; the sentence names the mean."""

    name, device, precision, max_batch = "mean", "test", "fp32", 4

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.captioned: list[int] = []

    def encode(self, crops: NDArray[np.uint8]) -> dict[str, Any]:
        assert 1 <= len(crops) <= self.max_batch
        self.sizes.append(len(crops))
        time.sleep(0.001)
        means = crops.reshape(len(crops), -1).mean(1, dtype=np.float32)
        rows = np.repeat(means[:, None], len(UNITS), 1)
        return {"log_odds": (rows - 100) / 10, "visual": rows, "channel": rows, "spatial": rows}

    def take(self, memory: dict[str, Any], faces: Sequence[int]) -> dict[str, Any]:
        return {name: memory[name][list(faces)] for name in ("visual", "channel", "spatial")}

    def join(self, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def caption(self, memory: dict[str, Any], active: NDArray[np.float32], rows: NDArray[np.int64]) -> dict[str, Any]:
        means = memory["visual"][:, 0].astype(int)
        self.captioned += means.tolist()
        ends = np.full(len(means), 2)
        whole = [[4, 5 + m, 2] for m in means]
        local = [[3, 5 + unit, 2] for _, unit in rows]
        assert (active[rows[:, 0], rows[:, 1]] == 1).all() or len(rows) == 1 or self.all_units
        return {"local_tokens": np.array(local), "global_tokens": np.array(whole), "ends": ends}

    all_units = False

    def close(self) -> None: ...


def runtime() -> Runtime:
    manifest = Manifest(
        name="mean",
        units=UNITS,
        side=SIDE,
        network={"kind": "stand-in"},
        thresholds=(0.5,) * 3,
        temperatures=(1.0,) * 3,
        tiers=("unrated",) * 3,
        vocabulary=VOCABULARY,
        words=3,
    )
    return Runtime(Bundle(Path(), manifest), MeanExecutor())


def faces(index: int, means: Sequence[int], stream: str = "cam", valid: Sequence[bool] | None = None) -> Faces:
    n = len(means)
    now = time.monotonic_ns()
    crops = np.array([np.full((SIDE, SIDE, 3), mean) for mean in means], np.uint8).reshape(n, SIDE, SIDE, 3)
    return Faces(
        Stamp(stream, index, index / 25, time.time_ns(), now),
        tracks=np.arange(n),
        boxes=np.zeros((n, 4), np.float32),
        landmarks=np.zeros((n, 5, 2), np.float32),
        scores=np.ones(n, np.float32),
        poses=np.zeros((n, 3), np.float32),
        quality=np.ones(n, np.float32),
        valid=np.ones(n, bool) if valid is None else np.array(valid),
        crops=crops,
        ready_ns=now,
    )


def predictor(used: Runtime | None = None, late: Sequence[str] = (), **settings: Any) -> Predictor:
    return Predictor(used or runtime(), PredictSettings(**settings), late_text=late)


def results(items: Sequence[Outcome | Ended]) -> list[Any]:
    return [
        item
        if isinstance(item, Ended)
        else (item.stamp.stream, item.stamp.index, [(f.track, f.aus, f.text, f.text_frame, f.why) for f in item.faces])
        for item in items
    ]


def test_each_face_gets_its_own_result_back_however_it_was_batched() -> None:
    packets = [faces(i, [(i * 7 + k) % 200 for k in range(i % 4)]) for i in range(200)]
    used = runtime()
    pipeline = Pipeline()
    pipeline.add(
        "predict",
        lambda items: predict_faces(items, predictor(used)),
        [pipeline.add("read", read, packets, capacity=16)],
    )
    with pipeline as items:
        threaded = results(list(items))
    chained = results(list(predict_faces(packets, predictor())))
    assert threaded == chained
    assert max(used.executor.sizes) == 4, "batches did form"  # type: ignore[attr-defined]
    for i, (_, index, own) in enumerate(chained):
        assert index == i
        means = [(i * 7 + k) % 200 for k in range(i % 4)]
        expected = [1 / (1 + np.exp(-(mean - 100) / 10)) for mean in means]
        assert [face[1]["AU12"].p for face in own] == pytest.approx(expected, abs=1e-4)


def test_a_face_that_is_not_valid_gets_no_units_and_costs_nothing() -> None:
    used = runtime()
    [outcome] = predict_faces([faces(0, [150, 150], valid=[False, True])], predictor(used))
    assert isinstance(outcome, Outcome)
    first, second = outcome.faces
    assert (first.valid, first.aus, first.text, first.why) == (False, {}, None, {})
    assert second.valid
    assert set(second.aus) == set(UNITS)
    assert used.executor.sizes == [1]  # type: ignore[attr-defined]


def test_a_frame_without_faces_travels_on() -> None:
    used = runtime()
    [outcome] = predict_faces([faces(0, [])], predictor(used))
    assert isinstance(outcome, Outcome)
    assert outcome.faces == []
    assert used.executor.sizes == []  # type: ignore[attr-defined]


def test_a_sentence_is_generated_at_a_change_and_kept_until_the_next() -> None:
    means = [50, 52, 150, 152, 151, 50]
    outcomes = results(list(predict_faces([faces(i, [m]) for i, m in enumerate(means)], predictor())))
    assert [face[3] for _, _, [face] in outcomes] == [0, 0, 2, 2, 2, 5]
    assert [face[2] for _, _, [face] in outcomes] == [f"Global {m}." for m in (50, 50, 150, 150, 150, 50)]
    assert outcomes[3][2][0][4] == {"AU01": "Unit 0.", "AU04": "Unit 1.", "AU12": "Unit 2."}
    assert outcomes[0][2][0][4] == {}, "no unit is active, so none is explained"


def test_all_units_can_be_explained() -> None:
    used = runtime()
    used.executor.all_units = True  # type: ignore[attr-defined]
    explaining = Predictor(used, PredictSettings(), all_units=True)
    [outcome] = predict_faces([faces(0, [50])], explaining)
    assert isinstance(outcome, Outcome)
    assert set(outcome.faces[0].why) == set(UNITS)


def test_a_live_stream_does_not_wait_for_its_sentence() -> None:
    """The first report has none yet; the sentence of frame 0 is in the report of frame 1, with its `text_frame`."""
    packets = [faces(i, [m]) for i, m in enumerate([50, 52, 150, 152])]
    outcomes = results(list(predict_faces(packets, predictor(late=["cam"]))))
    assert [face[3] for _, _, [face] in outcomes] == [None, 0, 0, 2]
    assert [face[1]["AU12"].on for _, _, [face] in outcomes] == [False, False, True, True], "states never wait"


def test_a_live_stream_does_not_wait_for_the_captioner_to_compile() -> None:
    """Until it is ready only units are reported; the first sentence is of the first frame after that. A file waits."""
    used = runtime()
    ready = iter([False, False, True, True, True])
    with patch.object(Runtime, "ready_to_explain", PropertyMock(side_effect=lambda: next(ready))):
        outcomes = results(list(predict_faces([faces(i, [150]) for i in range(5)], predictor(used, late=["cam"]))))
    assert [face[3] for _, _, [face] in outcomes] == [None, None, None, 2, 2]
    assert all(face[1]["AU12"].on for _, _, [face] in outcomes)
    with patch.object(Runtime, "ready_to_explain", PropertyMock(return_value=False)):
        outcomes = results(list(predict_faces([faces(i, [150]) for i in range(2)], predictor())))
    assert [face[3] for _, _, [face] in outcomes] == [0, 0]


def test_sentences_can_be_turned_off() -> None:
    used = runtime()
    outcomes = results(list(predict_faces([faces(i, [150]) for i in range(3)], predictor(used, explain="never"))))
    assert all(face[2] is None for _, _, [face] in outcomes)
    assert used.executor.captioned == []  # type: ignore[attr-defined]


def test_streams_do_not_mix() -> None:
    packets = []
    for i in range(10):
        packets += [faces(i, [50], "a"), faces(i, [150], "b")]
    outcomes = results(list(predict_faces(packets, predictor())))
    assert {face[2] for stream, _, [face] in outcomes if stream == "a"} == {"Global 50."}
    assert {face[2] for stream, _, [face] in outcomes if stream == "b"} == {"Global 150."}


def test_an_end_passes_after_its_frames() -> None:
    items: list[Faces | Ended] = [faces(0, [50]), Ended("cam", "finished"), faces(0, [60], "other")]
    outcomes = list(predict_faces(items, predictor()))
    assert [type(item).__name__ for item in outcomes] == ["Outcome", "Ended", "Outcome"]


def test_the_number_of_remembered_tracks_is_bounded() -> None:
    """The oldest track is forgotten, so a face that comes back under its number is described again."""
    used = predictor()

    def text_frame(frame: int, track: int) -> int | None:
        packet = faces(frame, [50])
        packet.tracks[0] = track
        [outcome] = used.outcomes([packet])
        return outcome.faces[0].text_frame

    last = REMEMBERED + 50
    assert [text_frame(i, i) for i in range(last)] == list(range(last))
    assert text_frame(last, 0) == last, "forgotten"
    assert text_frame(last + 1, last - 1) == last - 1, "remembered"


def test_a_malformed_packet_names_itself() -> None:
    good = faces(3, [1, 2])
    fields = ("boxes", "landmarks", "scores", "poses", "quality", "valid", "crops")
    with pytest.raises(ValueError, match="frame 3: every field needs one row per face"):
        Faces(good.stamp, good.tracks[:1], *(getattr(good, name) for name in fields))


def test_reports_are_plain_json(tmp_path: Path) -> None:
    from vlfau.engine import wire
    from vlfau.engine.counters import Counters
    from vlfau.engine.publishing import publish
    from vlfau.engine.sinks.group import Sinks

    outcomes = predict_faces([faces(0, [150])], predictor())
    [report] = publish(outcomes, Sinks([]), {"cam": Counters("cam")}, [])
    message = json.loads(wire.line(report))
    assert message["faces"][0]["aus"]["AU12"] == {"p": 0.9933, "on": True}
    assert message["latency_ms"]["total"] >= message["latency_ms"]["predict"] > 0
