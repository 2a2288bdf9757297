"""Lua that runs in the server: one file per operation, loaded on first use, called by its hash.

A script whose name begins with ``_`` is a piece that others include. Servers before 7.0 do not know the first line
(``#!lua flags=…``); they get the rest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from celeriac.redis.errors import ReplyError

if TYPE_CHECKING:
    from celeriac.redis.connect import Argument, Link
    from celeriac.redis.looped import AsyncLink

_INCLUDE = re.compile(r"^--@include (\S+)\n", re.MULTILINE)
#: what stands among a link's scripts when its server takes no first line
_OLD = "no #!lua"


class Script:
    """One script. Its texts for servers of today and of old; thread-safe."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self._old_text = text.partition("\n")[2] if text.startswith("#!") else text
        self._sha = _sha(self.text)
        self._old_sha = _sha(self._old_text)

    def run(
        self, link: Link, keys: Sequence[str | bytes], arguments: Sequence[Argument], deadline: float | None = None
    ) -> Any:  # fmt: skip
        """Call it; load it first where the server does not have it. Raises ``ReplyError`` and ``LinkBroken``."""
        try:
            return self._call(link, keys, arguments, deadline)
        except ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        self._load(link, deadline)
        return self._call(link, keys, arguments, deadline)

    async def ask(self, link: AsyncLink, keys: Sequence[str | bytes], arguments: Sequence[Argument]) -> Any:
        """As :meth:`run`, on the event loop."""
        try:
            return await link.call("EVALSHA", self._sha_for(link), len(keys), *keys, *arguments)
        except ReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        for text in self._texts_for(link):
            try:
                await link.call("SCRIPT", "LOAD", text)
                break
            except ReplyError as error:
                self._note_refusal(link, text, error)
        return await link.call("EVALSHA", self._sha_for(link), len(keys), *keys, *arguments)

    def _call(
        self, link: Link, keys: Sequence[str | bytes], arguments: Sequence[Argument], deadline: float | None
    ) -> Any:
        return link.call("EVALSHA", self._sha_for(link), len(keys), *keys, *arguments, deadline=deadline)

    def _load(self, link: Link, deadline: float | None) -> None:
        for text in self._texts_for(link):
            try:
                link.call("SCRIPT", "LOAD", text, deadline=deadline)
                return
            except ReplyError as error:
                self._note_refusal(link, text, error)

    def _sha_for(self, link: Link | AsyncLink) -> str:
        return self._old_sha if _OLD in link.scripts else self._sha

    def _texts_for(self, link: Link | AsyncLink) -> tuple[str, ...]:
        """What to load: the second if the server does not take the first."""
        if _OLD in link.scripts or self._old_text is self.text:
            return (self._old_text,)
        return (self.text, self._old_text)

    def _note_refusal(self, link: Link | AsyncLink, text: str, error: ReplyError) -> None:
        """Raises what is not about the first line of the text."""
        if text is self._old_text or not _is_about_text(str(error)):
            raise error
        link.scripts.add(_OLD)


def _sha(text: str) -> str:
    # the server's own choice; it is a name, not a protection
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _is_about_text(error: str) -> bool:
    return "compil" in error or "shebang" in error


@cache
def script(name: str) -> Script:
    """The script in ``<name>.lua``, its pieces put in."""
    folder = files(__name__)

    def text_of(file: str) -> str:
        return _INCLUDE.sub(lambda found: text_of(found[1]), (folder / file).read_text(encoding="utf-8"))

    return Script(name, text_of(f"{name}.lua"))
