"""Bounds on what comes from outside, and the scans that enforce them before anything is allocated.

A parser sees only bytes that passed here: their size, nesting and number of items are counted without building
values, so hostile input costs one linear pass. Source of the numbers: semantics SR6.
"""

from __future__ import annotations

import re

import msgspec

from celeriac.errors import DecodeError


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one message may cost. All sizes in bytes."""

    wire_bytes: int = 16 * 1024 * 1024
    decompressed_bytes: int = 64 * 1024 * 1024
    #: decompressed : compressed, for outputs above :data:`RATIO_FLOOR_BYTES`
    ratio: int = 100
    depth: int = 64
    items: int = 1_000_000
    header_keys: int = 256
    integer_digits: int = 4300


DEFAULT_LIMITS = Limits()

#: outputs up to this size are harmless at any ratio: a megabyte of one letter shrinks a thousandfold
RATIO_FLOOR_BYTES = 1024 * 1024

#: msgspec and CPython refuse longer integers by themselves
_PARSERS_INTEGER_DIGITS = 4300

_BRACKETS = b"[]{}"
#: everything that says nothing about a JSON text's shape
_NO_BRACKETS = bytes(set(range(256)) - set(_BRACKETS + b'"'))
_NO_SEPARATORS = bytes(set(range(256)) - set(_BRACKETS + b'",'))
_BRACES_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
# One string, or what is left of one that is never closed. Possessive, so that it can't backtrack.
_STRING = re.compile(rb'"[^"]*+(?:"|\Z)')
_DIGITS_TO_ZERO = bytes.maketrans(b"0123456789", b"0000000000")


def check_size(data: bytes, limit: int, what: str) -> None:
    if len(data) > limit:
        raise DecodeError(f"{what} has {len(data)} bytes, the limit is {limit}")


def check_json(data: bytes, limits: Limits) -> None:
    """Raise ``DecodeError`` when JSON text is too large, too deep, too populous or holds too long an integer."""
    size = len(data)
    if size > limits.decompressed_bytes:
        check_size(data, limits.decompressed_bytes, "JSON text")
    brackets = data.count(b"[") + data.count(b"{")
    if brackets > limits.depth:
        _check_json_depth(data, limits.depth)
    # every item but the first of its container follows a comma
    if size > limits.items and brackets + data.count(b",") > limits.items:
        items = _count_items(data)
        if items > limits.items:
            raise DecodeError(f"JSON text holds about {items} items, the limit is {limits.items}")
    if size > limits.integer_digits and limits.integer_digits < _PARSERS_INTEGER_DIGITS:
        bare = _STRING.sub(b'"', _without_escapes(data)).translate(_DIGITS_TO_ZERO)
        if b"0" * (limits.integer_digits + 1) in bare:
            raise DecodeError(f"JSON text holds a number of more than {limits.integer_digits} digits")


def _without_escapes(data: bytes) -> bytes:
    """JSON text whose quotes all begin or end a string. Backslashes outside of strings are no JSON anyway."""
    return data.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in data else data


def _outside_strings(data: bytes, noise: bytes) -> bytes:
    """JSON text without its strings and without the bytes in ``noise``."""
    # two neighbouring quotes cancel out whether they enclose an empty string or separate two others, so what is left
    # for the slower pattern are strings that hold something other than noise
    skeleton = _without_escapes(data).translate(None, noise).replace(b'""', b"")
    return _STRING.sub(b"", skeleton) if b'"' in skeleton else skeleton


def _count_items(data: bytes) -> int:
    """About how many items JSON text holds, strings not looked into."""
    bare = _outside_strings(data, _NO_SEPARATORS)
    return bare.count(b",") + bare.count(b"[") + bare.count(b"{")


def _check_json_depth(data: bytes, limit: int) -> None:
    """Peel the innermost containers off, all at once, as often as the limit allows."""
    left = _outside_strings(data, _NO_BRACKETS).translate(_BRACES_TO_BRACKETS)
    for _ in range(limit):
        peeled = left.replace(b"[]", b"")
        if len(peeled) == len(left):
            break
        left = peeled
    # what is never closed counts too: the parser would go down there before it finds out
    if left.count(b"[") > (0 if b"[]" in left else limit):
        raise DecodeError(f"JSON text is nested deeper than {limit}")


# ── MessagePack ──────────────────────────────────────────────────────────────────────────────────────────────

_SURELY_NO_CONTAINER = bytes(set(range(256)) - set(range(0x80, 0xA0)) - {0xDC, 0xDD, 0xDE, 0xDF})

#: lead byte → how many bytes of payload follow it at once
_FIXED_PAYLOAD = {
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
#: lead byte → (width of the length field, bytes besides the payload: the type byte of extensions)
_COUNTED_PAYLOAD = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1), 0xD9: (1, 0), 0xDA: (2, 0),
    0xDB: (4, 0),
}  # fmt: skip
#: lead byte → (width of the count field, values per entry)
_CONTAINERS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def check_msgpack(data: bytes, limits: Limits) -> None:
    """Raise ``DecodeError`` when MessagePack is too large, too deep, too populous or claims more than it has."""
    check_size(data, limits.decompressed_bytes, "MessagePack data")
    may_be_containers = data.translate(None, _SURELY_NO_CONTAINER)
    if (
        len(may_be_containers) > limits.depth
        or len(data) > limits.items
        or 0xDD in may_be_containers
        or 0xDF in may_be_containers
    ):
        _scan_msgpack(data, limits)


def _scan_msgpack(data: bytes, limits: Limits) -> None:
    end = len(data)
    position = items = 0
    open_counts = [1]  # values still to come, per open container; the document is a container of one
    while open_counts:
        if open_counts[-1] == 0:
            open_counts.pop()
            continue
        open_counts[-1] -= 1
        items += 1
        if position >= end:
            raise DecodeError(f"MessagePack data ends after {end} bytes, before its last value")
        position, children = _step_msgpack(data, position)
        if children is None:
            continue
        if children > end - position:
            raise DecodeError(f"MessagePack data claims {children} values where {end - position} bytes are left")
        if items + children > limits.items:
            raise DecodeError(f"MessagePack data holds more than {limits.items} items")
        open_counts.append(children)
        if len(open_counts) - 1 > limits.depth:
            raise DecodeError(f"MessagePack data is nested deeper than {limits.depth}")


def _step_msgpack(data: bytes, position: int) -> tuple[int, int | None]:
    """Read one lead byte: the position after the value (or after a container's head), and a container's count."""
    lead = data[position]
    position += 1
    if lead <= 0x7F or lead >= 0xE0:
        return position, None
    if lead <= 0x8F:
        return position, 2 * (lead & 0x0F)
    if lead <= 0x9F:
        return position, lead & 0x0F
    if lead <= 0xBF:
        return position + (lead & 0x1F), None
    if lead in _FIXED_PAYLOAD:
        return position + _FIXED_PAYLOAD[lead], None
    if lead in _COUNTED_PAYLOAD:
        width, extra = _COUNTED_PAYLOAD[lead]
        length = int.from_bytes(data[position : position + width], "big")
        return position + width + extra + length, None
    if lead in _CONTAINERS:
        width, factor = _CONTAINERS[lead]
        count = int.from_bytes(data[position : position + width], "big")
        return position + width, count * factor
    raise DecodeError(f"MessagePack data has the unused lead byte {lead:#x} at {position - 1}")
