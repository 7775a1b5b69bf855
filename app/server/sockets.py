"""What the kernel knows of a connection."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import resource
import socket
import struct
import termios
from array import array

RESERVED_FILES = 64  # descriptors that no connection may take, but for files and providers; an eighth of few


def count_descriptors(transport: asyncio.BaseTransport) -> tuple[int, int]:
    """Return how many descriptors the process may still open, and how many of them are reserved. The system gives the
    lowest free number, so the number of a new one says how many are open."""
    opened = transport.get_extra_info("socket")
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if opened is None or most == resource.RLIM_INFINITY:
        return 1, 0
    return most - opened.fileno(), min(RESERVED_FILES, most // 8)


def count_unacknowledged(transport: asyncio.BaseTransport) -> int:
    """Return the bytes that the kernel holds and the client has not acknowledged (tcp(7), SIOCOUTQ); 0 on systems
    without this call."""
    waiting = array("i", [0])
    with contextlib.suppress(OSError, AttributeError):
        fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, waiting)
    return waiting[0]


def count_unsent(transport: asyncio.WriteTransport) -> int:
    """Return the bytes that the client has not taken yet: in the process and in the kernel."""
    return transport.get_write_buffer_size() + count_unacknowledged(transport)


def reset_at_end(transport: asyncio.BaseTransport) -> None:
    """Let the end of the connection be a reset."""
    opened = transport.get_extra_info("socket")
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
