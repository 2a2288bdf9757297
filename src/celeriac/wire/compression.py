"""Compressed bodies: the codecs Celery names, and decompression that cannot be made to fill the memory.

Decompression stops as soon as the output passes what :class:`~celeriac.wire.limits.Limits` allows; nothing beyond
that is ever produced. All codecs are imported when first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from celeriac.errors import DecodeError, ImproperlyConfigured, MissingExtra
from celeriac.wire.limits import DEFAULT_LIMITS, RATIO_FLOOR_BYTES, Limits, check_size

#: (data, most bytes to produce) → (output, whether the stream is complete)
BoundedDecompress = Callable[[bytes, int], tuple[bytes, bool]]


class Codec(NamedTuple):
    mime: str
    aliases: tuple[str, ...]
    compress: Callable[[bytes], bytes]
    decompress: BoundedDecompress


#: a compressed stream may ask its reader for this much memory, no more (xz -9 wants 65 MiB)
_CODEC_MEMORY_BYTES = 128 * 1024 * 1024
#: RFC 8878 asks decoders to support windows of 8 MiB
_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024


def _drain(decompressor: Any, data: bytes, bound: int) -> tuple[bytes, bool]:
    """Run one of the standard library's incremental decompressors up to ``bound`` bytes."""
    output = decompressor.decompress(data, bound)
    while not decompressor.eof and len(output) < bound:
        if decompressor.needs_input:
            break
        output += decompressor.decompress(b"", bound - len(output))
    return output, decompressor.eof


def _inflate(data: bytes, bound: int) -> tuple[bytes, bool]:
    import zlib

    # 32 + 15: kombu writes zlib streams under the name gzip, other clients write real gzip; take both
    decompressor = zlib.decompressobj(32 + zlib.MAX_WBITS)
    output = decompressor.decompress(data, bound)
    return output, decompressor.eof


def _deflate(data: bytes) -> bytes:
    import zlib

    return zlib.compress(data)


def _compress_bzip2(data: bytes) -> bytes:
    import bz2

    return bz2.compress(data)


def _compress_lzma(data: bytes) -> bytes:
    import lzma

    return lzma.compress(data)


def _decompress_bzip2(data: bytes, bound: int) -> tuple[bytes, bool]:
    import bz2

    return _drain(bz2.BZ2Decompressor(), data, bound)


def _decompress_lzma(data: bytes, bound: int) -> tuple[bytes, bool]:
    import lzma

    return _drain(lzma.LZMADecompressor(memlimit=_CODEC_MEMORY_BYTES), data, bound)


def _vendor(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"Compression {extra!r} needs a package that is not installed ({name}): pip install 'celeriac[{extra}]'"
        ) from error


def _compress_zstd(data: bytes) -> bytes:
    compressed: bytes = _vendor("zstandard", "zstd").ZstdCompressor().compress(data)
    return compressed


def _decompress_zstd(data: bytes, bound: int) -> tuple[bytes, bool]:
    decompressor = _vendor("zstandard", "zstd").ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    with decompressor.stream_reader(data, read_across_frames=False) as reader:
        chunks: list[bytes] = []
        missing = bound
        while missing > 0:
            chunk = reader.read(min(missing, 1024 * 1024))
            if not chunk:
                break
            chunks.append(chunk)
            missing -= len(chunk)
    # the reader cannot tell a cut stream from a complete one: the frame's own size does
    output = b"".join(chunks)
    declared = _vendor("zstandard", "zstd").frame_content_size(data)
    return output, declared < 0 or declared == len(output)


def _compress_brotli(data: bytes) -> bytes:
    compressed: bytes = _vendor("brotli", "brotli").compress(data)
    return compressed


def _decompress_brotli(data: bytes, bound: int) -> tuple[bytes, bool]:
    decompressor = _vendor("brotli", "brotli").Decompressor()
    try:
        output: bytes = decompressor.process(data, output_buffer_limit=bound)
        while not decompressor.is_finished() and len(output) < bound:
            more = decompressor.process(b"", output_buffer_limit=bound - len(output))
            if not more:
                break
            output += more
    except TypeError as error:
        raise MissingExtra("Reading brotli safely needs its bounded decompressor: pip install 'brotli>=1.2'") from error
    return output, decompressor.is_finished()


_CODECS = (
    Codec("application/x-gzip", ("gzip", "zlib"), _deflate, _inflate),
    Codec("application/x-bz2", ("bzip2", "bzip"), _compress_bzip2, _decompress_bzip2),
    Codec("application/x-lzma", ("lzma", "xz"), _compress_lzma, _decompress_lzma),
    Codec("application/zstd", ("zstd", "zstandard"), _compress_zstd, _decompress_zstd),
    Codec("application/x-brotli", ("brotli",), _compress_brotli, _decompress_brotli),
)
_by_name: dict[str, Codec] = {name: codec for codec in _CODECS for name in (codec.mime, *codec.aliases)}


def compression_names() -> list[str]:
    """The names that ``compression=`` takes."""
    return [name for name in _by_name if "/" not in name]


def compress(data: bytes, name: str) -> tuple[bytes, str]:
    """``data`` compressed, and the MIME type for the ``compression`` header. ``name``: alias or MIME type."""
    codec = _by_name.get(name)
    if codec is None:
        raise ImproperlyConfigured(f"Compression {name!r} does not exist. Known: {', '.join(compression_names())}.")
    return codec.compress(data), codec.mime


def decompress(data: bytes, name: Any, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """``data`` decompressed, within ``limits``. Raises ``DecodeError``, also when the codec is absent."""
    codec = _by_name.get(name) if isinstance(name, str) else None
    if codec is None:
        raise DecodeError(f"The message is compressed with the unknown method {str(name)[:100]!r}")
    check_size(data, limits.wire_bytes, "The compressed body")
    bound = min(limits.decompressed_bytes, max(limits.ratio * len(data), RATIO_FLOOR_BYTES))
    try:
        output, complete = codec.decompress(data, bound + 1)
    except MissingExtra as error:
        raise DecodeError(f"The body cannot be decompressed here. {error}") from error
    except Exception as error:
        raise DecodeError(f"The body is not {codec.aliases[0]} data: {error}") from error
    if len(output) > bound:
        raise DecodeError(
            f"The body of {len(data)} compressed bytes becomes more than {bound} bytes; allowed are "
            f"{limits.decompressed_bytes} bytes and {limits.ratio} times the compressed size"
        )
    if not complete:
        raise DecodeError(f"The {codec.aliases[0]} data of the body is cut short")
    return output
