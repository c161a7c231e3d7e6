"""The address the host listens on, taken before anything else is started."""

from __future__ import annotations

import errno
import socket

from broadcast.errors import ClarionError


class CannotListen(ClarionError):  # noqa: N818 - reads as a sentence where it is raised
    """The address cannot be had; the text has the mend."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one. Raises `CannotListen`."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise CannotListen(f"{host} is no address; name one of this machine's with --host") from error
    try:
        return socket.create_server((str(address[0]), port), family=family, backlog=1024)
    except OSError as error:
        raise CannotListen(_mend(error, host, port)) from error


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def _mend(error: OSError, host: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} is in use by another program; stop it, or choose another with --port"
        case errno.EACCES | errno.EPERM:
            return f"port {port} is reserved; choose one above 1023 with --port"
        case errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine; choose another with --host"
    return f"cannot listen on {host}, port {port}: {error.strerror}; choose others with --host and --port"
