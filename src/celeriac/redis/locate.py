"""Which server to connect to: the addresses in turn, the master that Sentinels name, the node that has our slot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from redis import exceptions
from redis.crc import key_slot

from celeriac.redis.errors import Fault, LinkBroken

if TYPE_CHECKING:
    from celeriac.redis.address import Address, Endpoint
    from celeriac.redis.connect import Link

#: connects to one endpoint: address, endpoint, deadline
Connect = Callable[["Address", "Endpoint", float | None], "Link"]


def servers(address: Address, connect: Connect, deadline: float | None) -> Iterator[Endpoint]:
    """Servers to try, the likeliest first. May ask others on the way; raises when all of those fail."""
    if address.kind == "plain":
        yield from address.endpoints
        return
    ask = _master if address.kind == "sentinel" else _node
    last: BaseException | None = None
    for endpoint in address.endpoints:
        asked = replace(endpoint, login=address.sentinel_login, db=0) if address.kind == "sentinel" else endpoint
        try:
            link = connect(address, asked, deadline)
            try:
                found = ask(address, endpoint, link, deadline)
            finally:
                link.close()
        except (exceptions.RedisError, OSError) as error:
            last = error
        else:
            yield found
    if last is not None:
        raise last


def _master(address: Address, sentinel: Endpoint, link: Link, deadline: float | None) -> Endpoint:
    reply = link.call("SENTINEL", "MASTER", address.master_name, deadline=deadline)
    state = _texts(reply)
    # its own role tells the rest, once we are connected
    down = {"s_down", "o_down"} & set(state.get("flags", "").split(","))
    others = int(state.get("num-other-sentinels", 0))
    if down:
        raise LinkBroken(f"{sentinel} says the master {address.master_name} is down", Fault.STANDBY, sent=False)
    if others < address.min_other_sentinels:
        raise LinkBroken(
            f"{sentinel} sees {others} other sentinels, min_other_sentinels is {address.min_other_sentinels}",
            Fault.STANDBY, sent=False,
        )  # fmt: skip
    return replace(sentinel, host=state["ip"], port=int(state["port"]))


def _node(address: Address, seed: Endpoint, link: Link, deadline: float | None) -> Endpoint:
    slot = key_slot((address.hash_tag or "").encode())
    for first, last, master, *_ in link.call("CLUSTER", "SLOTS", deadline=deadline):
        if first <= slot <= last:
            host = (master[0] or b"").decode()
            # a node that does not know its own name is the one that we asked
            return replace(seed, host=host if host not in ("", "?") else seed.host, port=int(master[1]))
    raise LinkBroken(f"no node of the cluster serves slot {slot}", Fault.STANDBY, sent=False)


def _texts(reply: Any) -> dict[str, str]:
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=False)
    return {name.decode(): value.decode() for name, value in pairs}
