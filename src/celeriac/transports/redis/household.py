"""What the parts of one Redis transport share."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celeriac.redis.address import Address
    from celeriac.redis.connect import Links
    from celeriac.redis.errors import Translating
    from celeriac.redis.keys import Keys
    from celeriac.redis.records import Records
    from celeriac.transports.redis.sending import Bindings, Sorter


class Household(NamedTuple):
    """Made once by the transport."""

    address: Address
    keys: Keys
    links: Links
    sorter: Sorter
    bindings: Bindings
    records: Records
    translating: Translating
    lease: float
    max_bytes: int
    dead_letter_expires: float
    strategy: str
    #: consumers that were closed while tasks of theirs ran, and the fields that stay held
    kept: list[tuple[str, Sequence[str]]]
