"""The wire format: schema 1 as documented, both encodings, the shipped JSON Schema, and what encoding costs."""

from __future__ import annotations

import json
import timeit
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from reports import UNITS, make_end, make_report, make_status

from vlfau.engine import wire
from vlfau.engine.sinks.group import Changes
from vlfau.models.errors import UserError

SCHEMA_FILE = Path(wire.__file__).with_name("schema-1.json")


def messages() -> list[wire.AnyMessage]:
    report = make_report(3, faces=2)
    return [
        report,
        make_report(4, faces=0),
        make_report(5, valid=False),
        *Changes()(report),
        make_status(2),
        make_end(),
    ]


def test_the_payload_is_schema_1_with_its_keys_in_order() -> None:
    payload = json.loads(wire.encode(make_report(7)).partition(b" ")[2])
    assert list(payload) == ["v", "seq", "stream", "frame", "pts", "captured_ns", "dropped", "latency_ms", "faces"]
    assert payload["v"] == 1
    assert list(payload["latency_ms"]) == ["decode", "detect", "align", "predict", "explain", "total"]
    face = payload["faces"][0]
    assert list(face) == ["track", "box", "score", "landmarks", "pose", "valid", "aus", "text_frame", "text", "why"]
    assert list(face["pose"]) == ["yaw", "pitch", "roll"]
    assert list(face["aus"]) == list(UNITS)
    assert list(face["aus"]["AU01"]) == ["p", "on"]
    assert (len(face["box"]), len(face["landmarks"]), len(face["landmarks"][0])) == (4, 5, 2)


def test_optional_fields_appear_only_when_set() -> None:
    face = make_report().faces[0]
    assert b"baseline" not in wire.ENCODINGS["json"](face)
    changed = wire.Face(**{name: getattr(face, name) for name in face.__struct_fields__} | {"baseline": True})
    assert wire.ENCODINGS["json"](changed).endswith(b'"baseline":true}')


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_every_kind_survives_encoding(encoding: str) -> None:
    for message in messages():
        assert wire.decode(wire.encode(message, encoding)) == message


def test_a_topic_comes_first_and_names_the_kind() -> None:
    topics = [wire.encode(message).partition(b" ")[0] for message in messages()]
    assert topics == [b"au/cam", b"au/cam", b"au/cam", b"text/cam", b"text/cam", b"status/cam", b"end/cam"]


def test_numbers_are_short() -> None:
    assert wire.units(["AU01"], [1 / 3], [True])["AU01"].p == 0.3333
    assert wire.box([1 / 3, 2, 3, 4])[0] == 0.33
    assert wire.pose(float("nan"), 0.0, 0.0) is None
    assert wire.quantiles([]) is None
    assert wire.quantiles([1.0, 2.0, 3.0]) == wire.Quantiles(2.0, 2.9, 2.98)


def test_the_shipped_schema_is_that_of_the_code() -> None:
    shipped = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    assert in_order(shipped) == in_order(wire.json_schema()), "python -m vlfau.engine.wire > engine/schema-1.json"


def in_order(schema: Any) -> Any:
    """With sorted alternatives, whose order depends on the version of msgspec."""
    if isinstance(schema, dict):
        parts = {key: in_order(value) for key, value in schema.items()}
        return parts | ({"anyOf": sorted(parts["anyOf"], key=str)} if "anyOf" in parts else {})
    return [in_order(part) for part in schema] if isinstance(schema, list) else schema


def test_real_messages_fit_the_shipped_schema_and_damaged_ones_do_not() -> None:
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    for message in messages():
        payload = json.loads(wire.line(message))
        definition = {"$ref": f"#/$defs/{type(message).__name__}", "$defs": schema["$defs"]}
        jsonschema.validate(payload, definition)
        jsonschema.validate(payload, schema)
        for damage in ({"v": 2}, {"seq": "one"}):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(payload | damage, definition)
        for key in ("v", "seq", "stream"):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate({name: value for name, value in payload.items() if name != key}, definition)


@pytest.mark.parametrize(
    "message",
    [
        b"au/cam",
        b"news/cam {}",
        b'au/cam {"v":2,"seq":0,"stream":"cam"}',
        wire.encode(make_report()).replace(b'"v":1', b'"v":2'),
        wire.encode(make_report())[:-20],
        b"au/cam \x81\xff",
        b"au/cam ",
    ],
)
def test_messages_of_another_schema_are_refused(message: bytes) -> None:
    with pytest.raises(UserError, match=r"schema 1|Unknown kind"):
        wire.decode(message)


def test_an_unknown_field_is_ignored() -> None:
    message = wire.encode(make_report())
    assert wire.decode(message.replace(b'"dropped":', b'"new":{"a":[1]},"dropped":')) == wire.decode(message)


def test_stream_names_fit_into_a_topic() -> None:
    assert wire.stream_name(" Front door / left\n") == "Front-door-left"
    assert wire.stream_name("///") == "stream"
    assert wire.stream_name("a\x9b2J\u202eb\u200fc\udc80d") == "a-2J-b-c-d"
    assert wire.stream_name("x" * 300) == "x" * 200


def test_a_text_is_sent_only_when_a_sentence_changes() -> None:
    changes = Changes()
    assert [text.seq for text in changes(make_report(0, faces=2))] == [0, 1]
    same = make_report(0, faces=2)
    assert changes(same) == []
    assert changes(make_report(1, faces=2, valid=False)) == [], "no sentence is not a new sentence"
    assert [(text.seq, text.track) for text in changes(make_report(0, faces=1, sentence=1))] == [(2, 0)]
    assert [text.seq for text in changes(make_report(0, "other"))] == [0], "each topic counts separately"


def test_encoding_one_face_costs_less_than_a_tenth_of_a_millisecond(capsys: pytest.CaptureFixture[str]) -> None:
    report = make_report()
    for encoding in wire.ENCODINGS:
        best = min(timeit.repeat(partial(wire.encode, report, encoding), number=200, repeat=7)) / 200
        with capsys.disabled():
            print(f" {encoding}: {best * 1e6:.1f} us, {len(wire.encode(report, encoding))} bytes", end="")
        assert best < 100e-6
