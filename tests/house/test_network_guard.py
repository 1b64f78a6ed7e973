"""The guard that conftest.py puts around every test."""

import socket

import pytest

from tests.house.network_guard import NetworkForbiddenError, forbidden_network, is_local


# Reserved for documentation (RFC 5737): no machine has it.
ELSEWHERE = ("192.0.2.1", 9)


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_refuses_and_remembers_other_machines(method, monkeypatch):
    monkeypatch.setattr(socket.socket, method, lambda self, address: pytest.fail("a real connection was tried"))
    refusal = pytest.raises(NetworkForbiddenError, match=r"192\.0\.2\.1")
    with forbidden_network() as attempts, socket.socket() as client, refusal:
        getattr(client, method)(ELSEWHERE)
    assert attempts == [ELSEWHERE]


def test_lets_loopback_through():
    with forbidden_network() as attempts, socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), timeout=5)
        assert client.getpeername() == server.getsockname()
        client.close()
    assert attempts == []


def test_is_gone_afterwards():
    before = socket.socket.connect
    with forbidden_network():
        assert socket.socket.connect is not before
    assert socket.socket.connect is before


@pytest.mark.parametrize(
    ("family", "address", "expected"),
    [
        (socket.AF_INET, ("127.0.0.53", 53), True),
        (socket.AF_INET6, ("::1", 80, 0, 0), True),
        (socket.AF_INET, ("localhost", 80), True),
        (socket.AF_UNIX, "/tmp/socket", True),
        (socket.AF_INET, ("10.0.0.1", 80), False),
        (socket.AF_INET, ("huggingface.co", 443), False),
        (socket.AF_INET6, ("2001:db8::1", 443, 0, 0), False),
    ],
)
def test_which_addresses_are_local(family, address, expected):
    assert is_local(family, address) is expected
