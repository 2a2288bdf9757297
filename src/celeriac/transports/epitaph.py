"""What stands on the grave of a message where a broker keeps dead letters in queues of their own. Pure."""

from __future__ import annotations

import msgspec

from celeriac.errors import DecodeError


class Epitaph(msgspec.Struct, frozen=True, kw_only=True):
    """Why a message was set aside, and its bytes as they were."""

    reason: str
    queue: str
    worker: str
    buried_at: float  #: seconds since the epoch
    attempts: int = 0
    payload: bytes  #: base64 in the JSON text


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Epitaph).decode


def epitaph(
    *, reason: str, queue: str, worker: str, buried_at: float, payload: bytes, attempts: int = 0
) -> bytes:  # fmt: skip
    """The JSON text. What the reason quotes of a message need not be text."""
    clean = reason.encode("utf-8", "replace").decode()
    whole = Epitaph(
        reason=clean, queue=queue, worker=worker, buried_at=buried_at, attempts=attempts, payload=payload
    )  # fmt: skip
    return _encode(whole)


def read_epitaph(data: bytes) -> Epitaph:
    """Raises ``DecodeError``."""
    try:
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"Not an epitaph: {error}") from error
