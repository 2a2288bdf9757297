"""Task messages: what is written, what is read back, what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from celeriac.errors import ContentDisallowed, DecodeError, EncodeError, ImproperlyConfigured, InvalidTaskError
from celeriac.wire.envelope import Envelope
from celeriac.wire.limits import Limits
from celeriac.wire.serializers import accept_set
from celeriac.wire.task_message import TaskBody, TaskCall, encode_task, normalize, read_body, timestamp_of

NOW = 1_700_000_000.0
#: Celery 5.7's headers, in its order
HEADERS = [
    "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit", "root_id",
    "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting", "stamped_headers",
    "stamps",
]  # fmt: skip


def call(**options: Any) -> TaskCall:
    return TaskCall(**{"task": "pkg.add", "id": "id-1", "args": (2,), "kwargs": {"y": 3}, **options})


def message(body: bytes, headers: dict[str, Any] | None = None, content_type: str = "application/json") -> Envelope:
    given = {"task": "t", "id": "i"} if headers is None else headers
    return Envelope(body, given, {"content_type": content_type, "content_encoding": "utf-8"})


class TestWriting:
    def test_plain_call_has_celerys_headers_properties_and_body(self) -> None:
        envelope = encode_task(call(origin="gen1@h", reply_to="r"), NOW)
        assert list(envelope.headers) == HEADERS
        assert envelope.headers["root_id"] == "id-1"
        assert envelope.headers["timelimit"] == [None, None]
        assert (envelope.headers["argsrepr"], envelope.headers["kwargsrepr"]) == ("(2,)", "{'y': 3}")
        assert envelope.properties == {
            "content_type": "application/json", "content_encoding": "utf-8", "correlation_id": "id-1",
            "reply_to": "r", "delivery_mode": 2, "priority": 0,
        }  # fmt: skip
        assert json.loads(envelope.body) == [
            [2], {"y": 3}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None},
        ]  # fmt: skip

    def test_times_are_iso_text_and_expiry_is_a_property_too(self) -> None:
        eta = datetime(2030, 1, 1, tzinfo=timezone(timedelta(hours=2)))
        expires = datetime.fromtimestamp(NOW + 30, UTC).replace(tzinfo=None)
        envelope = encode_task(call(eta=eta, expires=expires), NOW)
        assert envelope.headers["eta"] == "2030-01-01T00:00:00+02:00"
        assert envelope.headers["expires"] == "2023-11-14T22:13:50+00:00"
        assert envelope.properties["expiration"] == "30000"

    @pytest.mark.parametrize("expires", ["2020-01-01T00:00:00+00:00", "2020-01-01T00:00:00", "2020-01-01T00:00:00Z"])
    def test_past_expiry_is_zero_and_text_is_passed_on(self, expires: str) -> None:
        envelope = encode_task(call(expires=expires), NOW)
        assert envelope.headers["expires"] == expires
        assert envelope.properties["expiration"] == "0"

    def test_custom_headers_and_properties_are_merged_at_top_level(self) -> None:
        envelope = encode_task(call(headers={"my": 1, "lang": "x"}, properties={"MessageGroupId": "g"}), NOW)
        assert (envelope.headers["my"], envelope.headers["lang"]) == (1, "x")
        assert envelope.properties["MessageGroupId"] == "g"

    @pytest.mark.parametrize("options", [{"args": "abc"}, {"args": 5}, {"args": {1}}, {"kwargs": [1]}])
    def test_wrong_shapes_are_type_errors_as_in_celery(self, options: dict[str, Any]) -> None:
        with pytest.raises(TypeError):
            encode_task(call(**options), NOW)

    def test_other_sequences_and_mappings_are_taken(self) -> None:
        envelope = encode_task(call(args=range(3)), NOW)
        assert read_body(envelope, None).args == [0, 1, 2]

    def test_unknown_serializer_and_compression_are_configuration_errors(self) -> None:
        with pytest.raises(ImproperlyConfigured, match="Did you mean 'json'"):
            encode_task(call(serializer="jason"), NOW)
        with pytest.raises(ImproperlyConfigured, match="gzip"):
            encode_task(call(compression="zip"), NOW)

    def test_what_json_cannot_say_is_an_encode_error(self) -> None:
        with pytest.raises(EncodeError, match=r"builtins\.set"):
            encode_task(call(args=({1},)), NOW)

    @pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
    @pytest.mark.parametrize("compression", [None, "gzip", "bzip2", "lzma", "zstd", "brotli"])
    @pytest.mark.parametrize("protocol", [1, 2])
    def test_every_combination_is_read_back(self, serializer: str, compression: str | None, protocol: int) -> None:
        signature = {"task": "b", "args": [], "kwargs": {}, "options": {}, "subtask_type": None, "immutable": False}
        envelope = encode_task(
            call(serializer=serializer, compression=compression, protocol=protocol, callbacks=[signature]), NOW
        )
        accept = accept_set([serializer])
        body = read_body(normalize(envelope, accept=accept), accept)
        assert body == TaskBody([2], {"y": 3}, [signature], None, None, None)

    def test_chain_of_protocol_1_becomes_nested_links(self) -> None:
        steps = [{"task": "last", "options": {}}, {"task": "next", "options": {"link": {"task": "own"}}}]
        envelope = encode_task(call(protocol=1, chain=steps), NOW)
        link = json.loads(envelope.body)["callbacks"][0]
        assert link["task"] == "next"
        assert [each["task"] for each in link["options"]["link"]] == ["own", "last"]


class TestNormalize:
    def test_protocol_2_passes_as_the_same_object(self) -> None:
        envelope = encode_task(call(), NOW)
        assert normalize(envelope) is envelope

    def test_protocol_1_is_rewritten(self) -> None:
        body = {
            "task": "t", "id": "i", "args": [1], "kwargs": {"a": 2}, "retries": 2, "eta": "2030-01-01T00:00:00",
            "taskset": "g", "timelimit": [3, 4], "utc": False, "callbacks": [{"task": "c"}],
        }  # fmt: skip
        normal = normalize(message(json.dumps(body).encode(), {"my": "own"}))
        headers = normal.headers
        assert (headers["task"], headers["id"], headers["root_id"], headers["group"]) == ("t", "i", "i", "g")
        assert (headers["retries"], headers["timelimit"], headers["eta"]) == (2, [3, 4], "2030-01-01T00:00:00")
        assert (headers["my"], headers["utc"]) == ("own", False)
        assert read_body(normal, None) == TaskBody([1], {"a": 2}, [{"task": "c"}], None, None, None)

    def test_headers_of_a_hybrid_win_over_its_body(self) -> None:
        body = {"task": "body", "id": "i", "args": [1], "kwargs": {}, "eta": "x"}
        normal = normalize(message(json.dumps(body).encode(), {"task": "header", "id": "j"}))
        assert (normal.headers["task"], normal.headers["id"], normal.headers["eta"]) == ("header", "j", "x")
        assert read_body(normal, None).args == [1]

    @pytest.mark.parametrize(
        ("headers", "body"),
        [
            ({}, b"[[],{},null]"),
            ({}, b"{}"),
            ({"task": "t"}, b"[[],{},null]"),
            ({"task": "t", "id": None}, b"[[],{},null]"),
            ({"task": "t", "id": "a b"}, b"[[],{},null]"),
            ({"task": "t", "id": "x" * 256}, b"[[],{},null]"),
            ({"task": "t", "id": "a\n"}, b"[[],{},null]"),
            ({"task": 5, "id": "i"}, b"[[],{},null]"),
            ({"task": "", "id": "i"}, b"[[],{},null]"),
            ({"task": "t", "id": "i"}, b'{"no": "args"}'),
            ({}, b'{"task": "t", "id": "i", "args": 5}'),
            ({}, b'{"task": "t", "id": "i", "kwargs": []}'),
            ({}, b'{"task": "t"}'),
            ({str(n): n for n in range(300)}, b"[[],{},null]"),
        ],
    )
    def test_what_is_no_task_message_is_refused(self, headers: dict[str, Any], body: bytes) -> None:
        with pytest.raises(InvalidTaskError):
            normalize(message(body, headers))

    def test_a_body_over_the_wire_limit_is_refused_unread(self) -> None:
        with pytest.raises(DecodeError, match="limit is 100"):
            normalize(message(b"[" * 101), Limits(wire_bytes=100))

    def test_unreadable_protocol_1_is_a_decode_error(self) -> None:
        with pytest.raises(DecodeError):
            normalize(message(b"\xff", {}))
        with pytest.raises(ContentDisallowed):
            normalize(message(b"x", {}, "application/x-python-serialize"))


class TestReadBody:
    @pytest.mark.parametrize(
        "body",
        [
            b"5", b"[]", b"[[],{}]", b"[[],{},{},{}]", b'["ab",{},{}]', b"[[],[],{}]", b"[[],null,{}]", b"[null,{},{}]",
            b"[[],{},[1]]", b'[[],{},{"callbacks": 5}]', b'{"kwargs": {}}', b"null",
        ],
    )  # fmt: skip
    def test_wrong_shapes_are_invalid(self, body: bytes) -> None:
        with pytest.raises(InvalidTaskError):
            read_body(message(body), None)

    @pytest.mark.parametrize("embed", [b"null", b"{}"])
    def test_embed_may_be_missing(self, embed: bytes) -> None:
        assert read_body(message(b"[[1],{}," + embed + b"]"), None) == TaskBody([1], {}, None, None, None, None)

    def test_a_compressed_hybrid_is_read_as_it_is(self) -> None:
        legacy = encode_task(call(protocol=1, compression="gzip"), NOW)
        hybrid = Envelope(legacy.body, {**legacy.headers, "task": "t", "id": "i"}, legacy.properties)
        assert read_body(normalize(hybrid), None).args == [2]

    def test_keyword_names_must_be_text(self) -> None:
        envelope = encode_task(call(serializer="pickle", kwargs={1: 2}), NOW)
        with pytest.raises(InvalidTaskError, match="keyword"):
            read_body(envelope, accept_set(["pickle"]))

    def test_content_type_decides_and_must_be_accepted(self) -> None:
        envelope = encode_task(call(serializer="yaml"), NOW)
        with pytest.raises(ContentDisallowed, match="application/x-yaml"):
            read_body(envelope, accept_set(["json"]))
        with pytest.raises(ContentDisallowed):
            read_body(message(b"x", content_type="text/nonsense"), None)
        envelope.properties["content_type"] = 5
        with pytest.raises(DecodeError):
            read_body(envelope, None)


class TestTimestampOf:
    @pytest.mark.parametrize(
        "moment",
        [
            "2023-11-14T22:13:20+00:00", "2023-11-14T22:13:20Z", "2023-11-14T22:13:20", "2023-11-15T00:13:20+02:00",
            datetime.fromtimestamp(NOW, UTC), datetime.fromtimestamp(NOW, UTC).replace(tzinfo=None),
        ],
    )  # fmt: skip
    def test_text_and_datetimes_become_seconds(self, moment: str | datetime) -> None:
        assert timestamp_of(moment) == NOW

    def test_none_is_none(self) -> None:
        assert timestamp_of(None) is None

    @pytest.mark.parametrize("moment", ["", "soon", "2023-13-01", 5, b"2023-11-14", [], True])
    def test_nonsense_is_invalid(self, moment: Any) -> None:
        with pytest.raises(InvalidTaskError):
            timestamp_of(moment)
