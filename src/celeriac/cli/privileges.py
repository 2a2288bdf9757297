"""Working as another user: ``--uid``, ``--gid``, ``--umask``. Only root may, and there must be no way back."""

from __future__ import annotations

import grp
import os
import pwd

from celeriac.cli.failures import Failure


def drop_privileges(user: str | int | None, group: str | int | None) -> None:
    """Become this user and group, by name or number; without a group, the user's own. Ends the command if it can't."""
    if user is None and group is None:
        return
    uid = None if user is None else _user(user)
    gid = _group(group) if group is not None else _primary_group(uid)
    is_there = (uid is None or (os.getuid(), os.geteuid()) == (uid, uid)) and (
        gid is None or (os.getgid(), os.getegid()) == (gid, gid)
    )
    if is_there:
        return
    if os.geteuid() != 0:
        raise Failure("--uid and --gid: only root can become somebody else.")
    if gid is not None:
        os.setgid(gid)
    if uid is None:
        return
    try:
        os.initgroups(pwd.getpwuid(uid).pw_name, os.getgid())
    except KeyError:
        os.setgroups([os.getgid()])
    os.setuid(uid)
    if uid != 0:
        _prove_there_is_no_way_back(uid)


def _prove_there_is_no_way_back(uid: int) -> None:
    try:
        os.setuid(0)
    except OSError:
        return
    raise Failure(f"--uid: this process can become root again after it has become user {uid}; it does not go on.")


def _user(name: str | int) -> int:
    try:
        return int(name)
    except ValueError:
        pass
    try:
        return pwd.getpwnam(str(name)).pw_uid
    except KeyError:
        raise Failure(f"--uid: there is no user {name!r}.") from None


def _group(name: str | int) -> int:
    try:
        return int(name)
    except ValueError:
        pass
    try:
        return grp.getgrnam(str(name)).gr_gid
    except KeyError:
        raise Failure(f"--gid: there is no group {name!r}.") from None


def _primary_group(uid: int | None) -> int | None:
    if uid is None:
        return None
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return None


def set_umask(mask: str | int | None) -> None:
    """As text it is octal. Ends the command for what is none."""
    if mask is None:
        return
    try:
        number = mask if isinstance(mask, int) else int(mask, 8)
        if not 0 <= number <= 0o777:
            raise ValueError
    except ValueError:
        raise Failure(f"--umask: {mask!r} is not an octal number such as 022.") from None
    os.umask(number)
