"""The embedded file is made private, and strange places are refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from celeriac.embedded import location
from celeriac.embedded.location import Location, location_of, network_type, prepare
from celeriac.errors import ImproperlyConfigured

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /mnt/share rw - nfs4 server:/export rw
31 22 0:27 / /mnt/share/local rw - tmpfs tmpfs rw
32 22 0:28 / /mnt/with\\040space rw shared:7 master:1 - cifs //server/x rw
33 22 0:29 / /mnt/fuse rw - fuse.sshfs me@host: rw
34 22 0:30 / /mnt/grpc rw - fuse.gvfsd-fuse gvfsd rw
35 22 0:31 / /mnt/over rw - ext4 /dev/vdb rw
36 35 0:32 / /mnt/over rw - 9p share rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me", None),
        ("/mnt/share", "nfs4"),
        ("/mnt/share/deep/er", "nfs4"),
        ("/mnt/shared", None),
        ("/mnt/share/local/x", None),
        ("/mnt/with space/x", "cifs"),
        ("/mnt/fuse", "fuse.sshfs"),
        ("/mnt/grpc", None),
        ("/mnt/over/x", "9p"),
    ],
)
def test_network_file_systems_are_recognised(path: str, kind: str | None) -> None:
    assert network_type(MOUNTS, path) == kind


def test_network_file_systems_are_refused_unless_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "file_system_of", lambda directory: "nfs4")
    with pytest.raises(ImproperlyConfigured, match=r"network file system \(nfs4\)"):
        prepare(location_of(f"sqlite:///{tmp_path}/q.sqlite3"))
    assert prepare(location_of(f"sqlite:///{tmp_path}/q.sqlite3?network=allow")).exists()


def test_urls() -> None:
    assert location_of("sqlite:////var/q.sqlite3").path == Path("/var/q.sqlite3")
    assert location_of("sqlite:///q%20q.sqlite3").path == Path.cwd() / "q q.sqlite3"
    for senseless in (
        "sqlite://host/q",
        "sqlite:///",
        "sqlite://",
        "redis:///q",
        "sqlite:///q?foo=1",
        "sqlite:///a%00b",
    ):
        with pytest.raises(ImproperlyConfigured):
            location_of(senseless)


def test_file_and_directory_are_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = prepare(Location(tmp_path / "a" / "q.sqlite3"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert prepare(Location(path)) == path


def test_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open.sqlite3"
    open_to_all.touch()
    open_to_all.chmod(0o666)
    with pytest.raises(ImproperlyConfigured, match="chmod 600"):
        prepare(Location(open_to_all))
    with pytest.raises(ImproperlyConfigured, match="not a regular file"):
        prepare(Location(tmp_path))
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(ImproperlyConfigured, match="CELERIAC_HOME"):
        prepare(Location(blocked / "q.sqlite3"))


def test_links_of_ones_own_are_followed(tmp_path: Path) -> None:
    real = prepare(Location(tmp_path / "real.sqlite3"))
    link = tmp_path / "link.sqlite3"
    link.symlink_to(real)
    assert prepare(Location(link)) == real


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_files_and_links_of_others_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "theirs.sqlite3"
    theirs.touch(0o600)
    os.chown(theirs, 12345, 12345)
    link = tmp_path / "link.sqlite3"
    link.symlink_to(theirs)
    os.lchown(link, 12345, 12345)
    with pytest.raises(ImproperlyConfigured, match="symbolic link"):
        prepare(Location(link))
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(ImproperlyConfigured, match="another user"):
        prepare(Location(theirs))
