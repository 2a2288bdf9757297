"""Every row of the table of troubles, for both sides."""

from __future__ import annotations

import socket
import ssl

import hiredis
import pytest
from redis import exceptions as vendor

from celeriac.errors import (
    BackendError,
    BackendStoreError,
    BrokerFull,
    BrokerUnavailable,
    ImproperlyConfigured,
    OperationalError,
)
from celeriac.redis.errors import CODES, Fault, LinkBroken, ReplyError, Translating, fault_of

BROKER = Translating("broker", "broker_url", "redis://h/0")
READING = Translating("reading", "result_backend", "redis://h/0")
WRITING = Translating("writing", "result_backend", "redis://h/0")

EXPECTED = {
    Fault.UNREACHABLE: (BrokerUnavailable, BackendError, BackendStoreError),
    Fault.SLOW: (BrokerUnavailable, BackendError, BackendStoreError),
    Fault.STANDBY: (BrokerUnavailable, BackendError, BackendStoreError),
    Fault.FULL: (BrokerFull, BackendError, BackendStoreError),
    Fault.REFUSED: (ImproperlyConfigured,) * 3,
    Fault.MISPLACED: (ImproperlyConfigured,) * 3,
    Fault.NO_SCRIPT: (OperationalError, BackendError, BackendStoreError),
    Fault.OTHER: (OperationalError, BackendError, BackendStoreError),
}


def within_tls(error: ssl.SSLError) -> Exception:
    """As redis-py raises what the socket raised while it connects."""
    try:
        try:
            raise error
        except OSError as inner:
            raise vendor.ConnectionError("Error connecting") from inner
    except vendor.ConnectionError as outer:
        return outer


REPLIES = [
    *((ReplyError(f"{code} some words"), fault) for code, fault in CODES.items()),
    (ReplyError("ERR max number of clients reached"), Fault.UNREACHABLE),
    (ReplyError("ERR AUTH <password> called without any password configured for the default user"), Fault.REFUSED),
    (ReplyError("ERR DB index is out of range"), Fault.MISPLACED),
    (ReplyError("ERR SELECT is not allowed in cluster mode"), Fault.MISPLACED),
    (ReplyError("ERR Error running script (call to f_1): @user_script:9: -READONLY You can't write"), Fault.STANDBY),
    (ReplyError("ERR Error running script (call to f_1): @user_script:9: -OOM command not allowed"), Fault.FULL),
    (ReplyError("ERR unknown command 'x'"), Fault.OTHER),
    (ReplyError("WRONGTYPE Operation against a key"), Fault.OTHER),
    # what redis-py makes of replies while it logs in: without the code
    (vendor.AuthenticationError("invalid username-password pair or user is disabled."), Fault.REFUSED),
    (vendor.NoPermissionError("this user has no permissions"), Fault.REFUSED),
    (vendor.BusyLoadingError("Redis is loading the dataset in memory"), Fault.STANDBY),
    (vendor.ReadOnlyError("You can't write against a read only replica."), Fault.STANDBY),
    (vendor.MasterDownError("Link with MASTER is down"), Fault.STANDBY),
    (vendor.ClusterDownError("The cluster is down"), Fault.STANDBY),
    (vendor.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), Fault.FULL),
    (vendor.ResponseError("DB index is out of range"), Fault.MISPLACED),
    (vendor.InvalidResponse("Protocol Error"), Fault.MISPLACED),
    (vendor.TimeoutError("Timeout connecting to server"), Fault.SLOW),
    (vendor.ConnectionError("Connection closed by server."), Fault.UNREACHABLE),
    (LinkBroken("late", Fault.SLOW, sent=True), Fault.SLOW),
    (hiredis.ProtocolError('Protocol error, got "H"'), Fault.MISPLACED),
    (ConnectionRefusedError(111, "Connection refused"), Fault.UNREACHABLE),
    (socket.gaierror(-2, "Name or service not known"), Fault.UNREACHABLE),
    (TimeoutError("timed out"), Fault.SLOW),
    (within_tls(ssl.SSLCertVerificationError(1, "self-signed certificate")), Fault.MISPLACED),
    (within_tls(ssl.SSLError(1, "WRONG_VERSION_NUMBER")), Fault.MISPLACED),
    (within_tls(ssl.SSLEOFError(8, "EOF")), Fault.UNREACHABLE),
]


@pytest.mark.parametrize(("error", "fault"), REPLIES, ids=lambda value: str(value)[:40])
def test_each_trouble_is_told_in_our_words(error: Exception, fault: Fault):
    assert fault_of(error) is fault
    for side, expected in zip((BROKER, READING, WRITING), EXPECTED[fault], strict=True):
        with pytest.raises(expected) as caught, side:
            raise error
        assert type(caught.value) is expected
        assert caught.value.__cause__ is error
        assert "redis://h/0" in str(caught.value)
        assert ("broker_url" if side is BROKER else "result_backend") in str(caught.value)


def test_what_is_ours_or_nobodys_passes():
    for error in (BrokerFull("ours"), ValueError("a bug"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, BROKER:
            raise error
        assert caught.value is error
