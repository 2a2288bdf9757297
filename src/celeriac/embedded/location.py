"""Where the embedded file lies: its URL, and the checks before it is trusted.

SQLite's locks need one kernel, so network file systems are refused; the file holds task arguments, so it is made
for its owner alone and a file of somebody else's is not opened.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from celeriac.errors import ImproperlyConfigured

#: types in /proc/self/mountinfo whose locks or shared memory do not hold between hosts
_NETWORK_TYPES = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "gpfs",
        "beegfs",
        "orangefs",
        "pvfs2",
        "ocfs2",
        "gfs2",
        "9p",
        "davfs",
    ]
)
_NETWORK_FUSE = ("sshfs", "s3fs", "gcsfuse", "glusterfs", "ceph", "rclone", "davfs", "goofys", "blobfuse", "nfs")


class Location(NamedTuple):
    path: Path
    network_allowed: bool = False


def location_of(url: str) -> Location:
    """The file that a ``sqlite://`` URL names: ``sqlite:///relative.sqlite3``, ``sqlite:////absolute.sqlite3``.

    ``?network=allow`` switches the refusal of network file systems off.
    """
    parts = urlsplit(url)
    if parts.scheme != "sqlite":
        raise ImproperlyConfigured(f"{parts.scheme or url!r} is not the scheme of an embedded file (sqlite).")
    if parts.netloc:
        raise ImproperlyConfigured(
            f"sqlite://{parts.netloc}/… names a host. Write three slashes before a relative path and four before an "
            f"absolute one: sqlite:///queue.sqlite3, sqlite:////var/lib/app/queue.sqlite3"
        )
    name = unquote(parts.path[1:])
    if not name or "\0" in name:
        raise ImproperlyConfigured("The sqlite URL names no file. Write sqlite:///queue.sqlite3")
    options = dict(parse_qsl(parts.query))
    unknown = set(options) - {"network"}
    if unknown:
        raise ImproperlyConfigured(f"Unknown options in the sqlite URL: {', '.join(sorted(unknown))}. Known: network.")
    return Location(Path(os.path.abspath(os.path.expanduser(name))), options.get("network") == "allow")


def prepare(location: Location) -> Path:
    """Check, and if it is missing create, the file (0600) and its directory (0700). Returns the real path.

    Never opens an existing file: closing any descriptor of it would drop the locks that SQLite holds for this
    process (POSIX advisory locks belong to the process, not to the descriptor).
    """
    directory = location.path.parent
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        kind = file_system_of(directory)
        if kind is not None and not location.network_allowed:
            raise ImproperlyConfigured(
                f"{location.path} lies on a network file system ({kind}), where SQLite's locks are not reliable. "
                f"Choose a local path or another broker, or append ?network=allow to the URL if one host alone uses it."
            )
        _own_file(location.path)
    except OSError as error:
        raise ImproperlyConfigured(
            f"{location.path} cannot be used as the embedded file: {error.strerror or error}. Choose another path in "
            f"broker_url, or set CELERIAC_HOME to a directory this user may write to."
        ) from error
    return Path(os.path.realpath(location.path))


def _own_file(path: Path) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            os.close(os.open(path, flags, 0o600))
        except FileExistsError:  # another process was faster
            _own_file(path)
        return
    me = os.geteuid()
    if stat.S_ISLNK(found.st_mode):
        if found.st_uid not in (me, 0):
            raise ImproperlyConfigured(f"{path} is a symbolic link made by another user (uid {found.st_uid}).")
        found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ImproperlyConfigured(f"{path} is not a regular file.")
    if found.st_uid != me and me != 0:
        raise ImproperlyConfigured(
            f"{path} belongs to another user (uid {found.st_uid}, this process has {me}). Run as that user or choose "
            f"another path."
        )
    if found.st_mode & stat.S_IWOTH:
        raise ImproperlyConfigured(f"{path} may be written by every user of this machine. Fix it: chmod 600 {path}")


def file_system_of(directory: Path) -> str | None:
    """The type of the network file system that ``directory`` lies on, or None for a local (or unknown) one."""
    try:
        table = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    return network_type(table, os.path.realpath(directory))


def network_type(mountinfo: str, path: str) -> str | None:
    """As :func:`file_system_of`, from the text of /proc/self/mountinfo (proc(5))."""
    best, kind = "", ""
    for line in mountinfo.splitlines():
        left, dash, right = line.partition(" - ")
        fields = left.split(" ")
        if not dash or len(fields) < 5:
            continue
        point = _unescaped(fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # a later line covers an earlier one at the same point
            best, kind = point, right.split(" ", 1)[0]
    if kind in _NETWORK_TYPES:
        return kind
    if kind.startswith("fuse.") and any(name in kind for name in _NETWORK_FUSE):
        return kind
    return None


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
