"""Serializers: kombu's types, what is refused, and the limits."""

from __future__ import annotations

import collections
import enum
import json
import math
import sys
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from celeriac.errors import ContentDisallowed, DecodeError, EncodeError, ImproperlyConfigured, MissingExtra
from celeriac.wire import json_types, serializers
from celeriac.wire.limits import DEFAULT_LIMITS, Limits
from celeriac.wire.serializers import FunctionSerializer, accept_set, dumps, loads, register_serializer

JSON = "application/json"


def json_text(value: Any) -> Any:
    return json.loads(dumps(value, "json")[0])


def read_json(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
    return loads(data, JSON, "utf-8", None, limits)


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + closing * depth).encode()


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


@dataclass
class Point:
    x: int


class Struct(msgspec.Struct):
    x: int


class Reduced:
    def __json__(self) -> Any:
        return {"at": datetime(2024, 1, 2), "items": (1, 2)}


class Fraction(float):
    pass


class TestJsonEncoding:
    @pytest.mark.parametrize(
        ("value", "marker", "text"),
        [
            (datetime(2024, 1, 2, 3, 4, 5, 678), "datetime", "2024-01-02T03:04:05.000678"),
            (datetime(2024, 1, 2, tzinfo=UTC), "datetime", "2024-01-02T00:00:00+00:00"),
            (date(2024, 1, 2), "date", "2024-01-02"),
            (time(3, 4, 5), "time", "03:04:05"),
            (Decimal("1.50"), "decimal", "1.50"),
            (uuid.UUID(int=5), "uuid", {"hex": "00000000000000000000000000000005"}),
            (b"abc", "bytes", "abc"),
            (b"\xff\x00", "base64", "/wA="),
        ],
    )
    def test_kombus_types_are_marked_and_read_back(self, value: Any, marker: str, text: Any) -> None:
        assert json_text(value) == {"__type__": marker, "__value__": text}
        for wrapped in (value, [value], {"k": value}, [[{"k": [value]}]]):
            assert read_json(dumps(wrapped, "json")[0]) == wrapped

    @pytest.mark.parametrize(
        ("value", "written"),
        [
            ((1, (2,)), [1, [2]]),
            (collections.OrderedDict(a=1), {"a": 1}),
            (collections.Counter("aab"), {"a": 2, "b": 1}),
            (collections.namedtuple("Pair", "a b")(1, 2), [1, 2]),
            (Level.LOW, 1),
            (Word.YES, "yes"),
            ([Fraction(1.5)], [1.5]),
            ({1.5: 2, True: 3, None: 4}, {"1.5": 2, "true": 3, "null": 4}),
            ({Level.LOW: 5, Word.YES: 6}, {"1": 5, "yes": 6}),
            (Reduced(), {"at": {"__type__": "datetime", "__value__": "2024-01-02T00:00:00"}, "items": [1, 2]}),
            (2**70, 2**70),
            ("\ud800", "\ud800"),
            ({"a": "\ud800", "b": math.inf}, {"a": "\ud800", "b": math.inf}),
        ],
    )
    def test_other_values_are_written_as_the_standard_library_does(self, value: Any, written: Any) -> None:
        assert json_text(value) == written

    def test_keys_of_mixed_kinds(self) -> None:
        assert json_text({True: 1, math.nan: 2, math.inf: 3, -math.inf: 4}) == {
            "true": 1, "NaN": 2, "Infinity": 3, "-Infinity": 4,
        }  # fmt: skip

    def test_nan_and_infinities_travel(self) -> None:
        value = read_json(dumps([math.nan, math.inf, -math.inf, 1.5], "json")[0])
        assert math.isnan(value[0])
        assert value[1:] == [math.inf, -math.inf, 1.5]

    @pytest.mark.parametrize(
        "value",
        [
            {1}, frozenset(), timedelta(1), Colour.RED, 1j, Point(1), Struct(1), object(), bytearray(b"x"),
            memoryview(b"x"), range(3), {(1,): 2}, {b"k": 1}, msgspec.Raw(b"1"), msgspec.UNSET, 10**5000,
        ],
        ids=lambda value: type(value).__name__,
    )  # fmt: skip
    def test_what_kombu_cannot_write_is_refused(self, value: Any) -> None:
        for wrapped in (value, [value], {"k": [value]}):
            with pytest.raises(EncodeError):
                dumps(wrapped, "json")

    @pytest.mark.parametrize("name", ["json", "msgpack", "yaml"])
    def test_a_value_that_holds_itself_is_refused(self, name: str) -> None:
        value: list[Any] = []
        value.append(value)
        with pytest.raises(EncodeError):
            dumps(value, name)

    def test_a_reducer_that_raises_or_never_ends_is_refused(self) -> None:
        class Broken:
            def __json__(self) -> Any:
                raise RuntimeError("no")

        class Endless:
            def __json__(self) -> Any:
                return [Endless()]

        for value in (Broken(), Endless()):
            with pytest.raises(EncodeError):
                dumps(value, "json")

    def test_deepest_value_that_is_written_can_be_read(self) -> None:
        value: Any = uuid.UUID(int=1)
        depth = 0
        while True:
            try:
                data = dumps(value, "json")[0]
            except EncodeError:
                break
            assert read_json(data) == value
            value = [value]
            depth += 1
        assert depth == DEFAULT_LIMITS.depth - 2 + 1  # the UUID itself takes two levels

    def test_types_can_be_registered(self) -> None:
        class Money(int):
            pass

        class Coin:
            def __init__(self, cents: int) -> None:
                self.cents = cents

        json_types.register_type(Coin, "test-coin", lambda coin: coin.cents, Coin)
        json_types.register_type(range, None, list)
        try:
            assert read_json(dumps([Coin(5)], "json")[0])[0].cents == 5
            assert json_text(range(3)) == [0, 1, 2]
            assert json_text(Money(3)) == 3
        finally:
            del json_types._encoders[Coin], json_types._encoders[range], json_types._decoders["test-coin"]


class TestJsonDecoding:
    @pytest.mark.parametrize(
        "data",
        [
            b"", b"{", b"nul", b"[1,]", b"\xff", b'"\xff"', b'{"a"}', b"\xef\xbb\xbf1", b"\x00", b"1 2", b"-", b"'a'",
            b'{"__type__": "nope", "__value__": 1}', b'{"__type__": 5, "__value__": 1}',
            b'{"__type__": [], "__value__": 1}', b'{"__type__": "uuid", "__value__": {"int": 5}}',
            b'{"__type__": "uuid", "__value__": "xyz"}', b'{"__type__": "datetime", "__value__": 5}',
            b'{"__type__": "date", "__value__": "2024-99-99"}', b'{"__type__": "decimal", "__value__": "x"}',
            b'{"__type__": "base64", "__value__": "*"}', b'{"__type__": "bytes", "__value__": 5}',
            b'{"__type__": "bytes", "__value__": "\\ud800"}',
        ],
    )  # fmt: skip
    def test_nonsense_is_a_decode_error(self, data: bytes) -> None:
        with pytest.raises(DecodeError):
            read_json(data)

    def test_only_the_exact_pair_of_keys_is_a_marker(self) -> None:
        value = {"__type__": "datetime", "__value__": "x", "more": 1}
        assert read_json(json.dumps(value).encode()) == value
        assert read_json(b'{"__type__": "datetime"}') == {"__type__": "datetime"}

    def test_markers_are_read_innermost_first_and_once(self) -> None:
        data = b'{"__type__": "bytes", "__value__": "{\\"__type__\\": \\"bytes\\", \\"__value__\\": \\"x\\"}"}'
        assert read_json(data) == b'{"__type__": "bytes", "__value__": "x"}'

    @pytest.mark.parametrize("depth", [65, 2_000, 200_000])
    @pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ("[", ""), ('["[",', "]")])
    def test_too_deep_is_a_decode_error(self, depth: int, opening: str, closing: str) -> None:
        with pytest.raises(DecodeError, match=r"nested|items"):
            read_json(nested(depth, opening, closing))

    def test_depth_counts_nesting_not_brackets(self) -> None:
        assert len(read_json(b"[" + b",".join([b"[[]]"] * 1000) + b"]")) == 1000
        assert read_json(b'["' + b"[{" * 1000 + b'"]') == ["[{" * 1000]
        assert read_json(b'["\\"' + b"[" * 1000 + b'\\\\"]') == ['"' + "[" * 1000 + "\\"]
        assert read_json(nested(64)) is not None

    def test_size_items_and_digits_are_bounded(self) -> None:
        with pytest.raises(DecodeError, match="bytes"):
            read_json(b'"' + b"x" * 100 + b'"', Limits(decompressed_bytes=100))
        with pytest.raises(DecodeError, match="items"):
            read_json(json.dumps([1] * 100).encode(), Limits(items=50))
        assert read_json(json.dumps(["," * 100]).encode(), Limits(items=50)) == ["," * 100]
        with pytest.raises(DecodeError):
            read_json(b"1" * 4301)
        with pytest.raises(DecodeError):
            read_json(b"[NaN, " + b"1" * 4301 + b"]")
        assert read_json(b"1" * 4300) == int("1" * 4300)
        with pytest.raises(DecodeError, match="digits"):
            read_json(b"[" + b"1" * 101 + b"]", Limits(integer_digits=100))
        assert read_json(b'["' + b"1" * 101 + b'"]', Limits(integer_digits=100)) == ["1" * 101]

    @pytest.mark.parametrize("tail", [b'"\\"' + b'\\"' * 500_000, b'"' + b"\\" * 1_000_001, b'"' * 1_000_001])
    def test_unclosed_strings_are_scanned_in_one_pass(self, tail: bytes) -> None:
        with pytest.raises(DecodeError):
            read_json(b"[" * 65 + tail)


class TestMsgpack:
    def test_plain_values_and_bytes_are_read_back(self) -> None:
        value = {"a": [1, -1, 2**63, 1.5, None, True, b"\xff", "ü"], "b": {"c": []}}
        data, content_type, encoding = dumps(value, "msgpack")
        assert (content_type, encoding) == ("application/x-msgpack", "binary")
        assert loads(data, content_type, encoding, accept_set(["msgpack"])) == value

    @pytest.mark.parametrize(
        "value", [datetime(2024, 1, 1, tzinfo=UTC), uuid.UUID(int=1), Decimal(1), {1}, 2**64, Struct(1), Colour.RED]
    )
    def test_what_kombu_cannot_write_is_refused(self, value: Any) -> None:
        with pytest.raises(EncodeError):
            dumps([value], "msgpack")

    @pytest.mark.parametrize(
        "data",
        [
            b"", b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdc\xff\xff", b"\x92\x01", b"\xa5ab",
            b"\xd9\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 65 + b"\xc0", b"\x91" * 100_000 + b"\xc0", b"\x01\x02",
            b"\x81\x80\x01", b"\xa1\xff", b"\xdd\x00\x00\x00\x41" + b"\x91" * 65, b"\xc7\x0c\xff" + b"\xff" * 12,
        ],
    )  # fmt: skip
    def test_nonsense_and_empty_promises_are_decode_errors(self, data: bytes) -> None:
        with pytest.raises(DecodeError):
            loads(data, "application/x-msgpack", "binary", accept_set(["msgpack"]))

    def test_items_are_bounded_and_the_scan_agrees_with_the_parser(self) -> None:
        accept = accept_set(["msgpack"])
        value = [[i, str(i), {"k": b"x" * 300, "f": 1.5, "n": -40_000}] for i in range(200)]
        data = dumps(value, "msgpack")[0]
        assert loads(data, "application/x-msgpack", "binary", accept) == value
        with pytest.raises(DecodeError, match="items"):
            loads(data, "application/x-msgpack", "binary", accept, Limits(items=500))


class TestYaml:
    ACCEPT = accept_set(["yaml"])

    def read(self, data: bytes, limits: Limits = DEFAULT_LIMITS) -> Any:
        return loads(data, "application/x-yaml", "utf-8", self.ACCEPT, limits)

    def test_values_are_read_back_shared_ones_too(self) -> None:
        shared = [1, 2]
        value = {"a": [shared, shared], "b": (1, None, 1.5, "ü"), "d": datetime(2024, 1, 2, 3, 4, 5)}
        read = self.read(dumps(value, "yaml")[0])
        assert read == {**value, "b": [1, None, 1.5, "ü"]}

    @pytest.mark.parametrize(
        "data",
        [
            b"a: &x [1]\nb: *x", b"!!python/object/apply:os.system ['true']", b"[", b"\xff", b"[" * 65 + b"]" * 65,
            b"[" * 5000, b"!!python/name:os.system", b"a: b: c", b"!!timestamp nope", b"%YAML 9.9\n---\n",
            b"--- 1\n--- 2", b"1:" * 5000 + b"1", b"1" * 5000,
        ],
    )  # fmt: skip
    def test_aliases_objects_and_nonsense_are_decode_errors(self, data: bytes) -> None:
        with pytest.raises(DecodeError):
            self.read(data)

    @pytest.mark.parametrize("text", ["a" * 5000, "1" * 5000, "1:" * 5000 + "1", "deadbeef" * 1000, "1 2 " * 2000])
    def test_long_texts_are_no_numbers(self, text: str) -> None:
        assert self.read(dumps([text], "yaml")[0]) == [text]

    def test_items_are_bounded(self) -> None:
        with pytest.raises(DecodeError, match="items"):
            self.read(b"[" + b"1," * 300 + b"]", Limits(items=100))

    def test_a_missing_package_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "yaml", None)
        with pytest.raises(MissingExtra, match=r"celeriac\[yaml\]"):
            dumps(1, "yaml")
        with pytest.raises(DecodeError, match=r"celeriac\[yaml\]"):
            self.read(b"1")

    def test_objects_are_not_written(self) -> None:
        with pytest.raises(EncodeError):
            dumps([object()], "yaml")


class TestPickleAndRaw:
    def test_pickle_is_read_only_by_name(self) -> None:
        data, content_type, encoding = dumps({1, 2}, "pickle")
        assert loads(data, content_type, encoding, accept_set(["pickle"])) == {1, 2}
        for accept in (None, accept_set(["json", "yaml", "msgpack"]), frozenset[str]()):
            with pytest.raises(ContentDisallowed, match="accept_content"):
                loads(data, content_type, encoding, accept)

    def test_unpicklable_and_broken_pickles(self) -> None:
        with pytest.raises(EncodeError):
            dumps(lambda: None, "pickle")
        for data in (b"", b"x", b"\x80\x04.", b"cnowhere\nnothing\n."):
            with pytest.raises(DecodeError):
                loads(data, "application/x-python-serialize", "binary", accept_set(["pickle"]))

    def test_raw_is_bytes_or_text_and_needs_no_permission(self) -> None:
        assert dumps(b"\xff", "raw") == (b"\xff", "application/data", "binary")
        assert dumps("ü", "raw") == ("ü".encode(), "application/data", "utf-8")
        assert loads(b"\xff", "application/data", "binary", None) == b"\xff"
        assert loads("ü".encode(), "application/data", "utf-8", frozenset()) == "ü"
        with pytest.raises(DecodeError):
            loads(b"\xff", "application/data", "utf-8", None)
        with pytest.raises(EncodeError):
            dumps(5, "raw")


class TestRegistry:
    def test_accept_set_has_names_and_types(self) -> None:
        assert accept_set(["json", "application/x-yaml"]) == {"json", JSON, "yaml", "application/x-yaml"}
        with pytest.raises(ImproperlyConfigured, match="pickle"):
            accept_set(["pikle"])

    def test_own_serializers(self) -> None:
        register_serializer(FunctionSerializer("test-rev", lambda v: v[::-1], lambda d: d.decode()[::-1], "test/rev"))
        try:
            assert dumps("abc", "test-rev") == (b"cba", "test/rev", "utf-8")
            assert loads(b"cba", "test/rev", "utf-8", accept_set(["test-rev"])) == "abc"
            with pytest.raises(EncodeError):
                dumps(5, "test-rev")
            with pytest.raises(DecodeError):
                loads(b"\xff", "test/rev", "utf-8", accept_set(["test-rev"]))
            with pytest.raises(ContentDisallowed):
                loads(b"cba", "test/rev", "utf-8", None)
        finally:
            del serializers._by_name["test-rev"], serializers._by_content_type["test/rev"]
