"""Sockets that go to this machine only."""

import ipaddress
import socket
from contextlib import contextmanager


class NetworkForbiddenError(OSError):
    """A connection to another machine was asked for."""


def is_local(family, address):
    """Whether a socket of that family stays on this machine when it connects to that address."""
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True
    host = address[0]
    if host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:  # a name that would have to be looked up
        return False


@contextmanager
def forbidden_network():
    """Refuse every connection to another machine, and yield the list of addresses that were asked for."""
    attempts = []
    connections = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}

    def guarded(connection):
        def connect(self, address):
            if not is_local(self.family, address):
                attempts.append(address)
                raise NetworkForbiddenError(f"tests may not connect to {address}")
            return connection(self, address)

        return connect

    for name, connection in connections.items():
        setattr(socket.socket, name, guarded(connection))
    try:
        yield attempts
    finally:
        for name, connection in connections.items():
            setattr(socket.socket, name, connection)
