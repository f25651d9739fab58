"""
What does the kernel know of a connection?

How much the peer has acknowledged, and whether something has come that nobody has read: by
these the heartbeat judges (tcp(7)). Where the platform does not say, nothing is known.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import sys
import termios
from typing import Protocol


class Kernel(Protocol):
    """What is known of one connection."""

    def unacknowledged(self) -> int:
        """Return how many bytes it has taken that the peer has not acknowledged."""

    def acknowledged(self) -> int | None:
        """Return how many bytes the peer has acknowledged, of all that were ever written."""

    def unread(self) -> bool:
        """Whether there is input that has not been read."""

    def wait_for_ever(self) -> None:
        """
        Do not end it because nothing is acknowledged: the heartbeat judges.

        What the listening socket has for event streams (`runner.listen`) would also end a peer that speaks, and has
        only shut its window for a while.
        """

    def reset_on_abort(self) -> None:
        """End with a reset: a peer that reads nothing would keep what it was sent in the kernel for many minutes."""


def kernel_of(transport: asyncio.Transport) -> Kernel:
    """Return what knows of a transport's connection: its socket, or what it offers instead."""
    given: Kernel | None = transport.get_extra_info("kernel")
    return TcpKernel(transport.get_extra_info("socket")) if given is None else given


class TcpKernel:
    """That of a TCP socket; of any other it knows nothing."""

    __slots__ = ("_fd",)

    def __init__(self, sock: socket.socket | None) -> None:
        self._fd = -1 if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6) else sock.fileno()

    def unacknowledged(self) -> int:
        """Return how many bytes it has taken that the peer has not acknowledged."""
        return self._ioctl(termios.TIOCOUTQ)

    def unread(self) -> bool:
        """Whether there is input that has not been read."""
        return self._ioctl(termios.FIONREAD) > 0

    def acknowledged(self) -> int | None:
        """Return how many bytes the peer has acknowledged, of all that were ever written."""
        if self._fd < 0 or sys.platform != "linux":
            return None
        sock = self._borrowed()
        try:
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 128)
        finally:
            sock.detach()
        # struct tcp_info in linux/tcp.h: tcpi_bytes_acked (RFC 4898), since Linux 4.1
        return int(struct.unpack_from("=Q", info, 120)[0]) if len(info) >= 128 else None

    def wait_for_ever(self) -> None:
        """Do not end it because nothing is acknowledged."""
        if sys.platform == "linux":
            self._set(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)

    def reset_on_abort(self) -> None:
        """End with a reset."""
        self._set(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _set(self, level: int, option: int, value: int | bytes) -> None:
        if self._fd >= 0:
            sock = self._borrowed()
            try:
                sock.setsockopt(level, option, value)
            finally:
                sock.detach()

    def _borrowed(self) -> socket.socket:
        """Borrow the socket from the transport, to ask it something: what uvloop hands out answers nothing."""
        # Said, and not left to Python to ask the kernel. Of which family it is makes no difference here.
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, self._fd)

    def _ioctl(self, request: int) -> int:
        if self._fd < 0:
            return 0
        try:
            return int(struct.unpack("=i", fcntl.ioctl(self._fd, request, b"\0\0\0\0"))[0])
        except OSError:
            return 0
