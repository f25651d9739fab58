"""
When is it noticed that a text on a WebSocket is none?

At its first byte that is wrong, also in the middle of a frame. The engine of websockets
gives out a frame when all of it is there, and leaves decoding to whoever has all frames of
a message: a peer could go on, for as long as the limits let it, with what was no text from
the start.
"""

from __future__ import annotations

from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Generator

from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol
from websockets.streams import StreamReader

try:  # in C; what is in Python takes twenty times as long
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

_Utf8 = getincrementaldecoder("utf-8")

# The head of a frame (RFC 6455 §5.2): the bits of its first two bytes, and how many bytes of a length follow them.
_FIN, _COMPRESSED, _OPCODE = 0x80, 0x40, 0x0F
_MASKED, _LENGTH = 0x80, 0x7F
_MORE_LENGTH = {126: 2, 127: 8}


class Strict(Protocol):
    """
    An engine that fails at the first byte that cannot be in a text (RFC 6455 §8.1).

    A text that has come whole, in one frame, it does not look at: whoever takes it decodes it at once.
    """

    reader: Reader

    @property
    def missing(self) -> int:
        """How many bytes have not come yet of a frame whose head has."""
        return self.reader.missing

    @property
    def is_between(self) -> bool:
        """Whether nothing has come of the next message, and one may come."""
        return self.reader.is_between and self.state is OPEN and self.current_size is None

    def take_pong(self) -> bytes:
        """Return the pong that it has made of the ping that it gives out now."""
        pong = self.writes.pop(0)
        assert pong[0] == _FIN | Opcode.PONG, "it has answered nothing else before"
        return pong

    def parse(self) -> Generator[None]:
        """Parse what comes."""
        self.reader = Reader()
        return super().parse()

    def end(self) -> None:
        """Parse no more: what parses knows this, as this knows it, and both would wait for the collector of cycles."""
        self.parser.close()

    def recv_frame(self, frame: Frame) -> None:
        """Take in a frame."""
        if frame.opcode is Opcode.CLOSE:
            # A control frame may come in the middle of a message (RFC 6455 §5.4); the engine would call this one an
            # error. It says that the rest of the message will not come.
            self.current_size = None
        super().recv_frame(frame)


class Reader(StreamReader):
    """
    What the engine reads from. While it waits for the rest of a text, what is there is looked at.

    Raises `UnicodeDecodeError` in the engine, which then fails with 1007.
    """

    __slots__ = ("_decoder", "_head", "_head_left", "_payload_bytes", "_seen")

    def __init__(self) -> None:
        super().__init__()
        self._head = b""  # of the frame that is being read
        self._head_left = 0  # bytes of it that are still to be read; none before the first frame
        self._payload_bytes = 0
        self._seen = 0  # bytes of its payload that have been looked at
        self._decoder: IncrementalDecoder | None = None  # while there is a part of a text

    def at_eof(self) -> Generator[None, None, bool]:
        """Tell whether nothing more comes; the engine asks before each frame."""
        self._head, self._head_left, self._payload_bytes, self._seen = b"", 2, 0, 0
        return super().at_eof()

    def read_exact(self, size: int) -> Generator[None, None, bytearray]:
        """Read so many bytes: of a frame its first two, then the rest of its length, its mask, and its payload."""
        if self._head_left:
            return self._read_head(size)
        self._payload_bytes = size
        if self._is_text():
            return self._read_text(size)
        return super().read_exact(size)

    @property
    def is_between(self) -> bool:
        """Whether nothing has come of the next frame."""
        return not self._head and not self.buffer

    @property
    def missing(self) -> int:
        """How many bytes of the payload that is being read have not come yet."""
        return max(0, self._payload_bytes - len(self.buffer))

    def _is_text(self) -> bool:
        opcode = self._head[0] & _OPCODE if self._head else None
        if opcode == Opcode.CONT:
            return self._decoder is not None
        return opcode == Opcode.TEXT and not self._head[0] & _COMPRESSED

    def _read_head(self, size: int) -> Generator[None, None, bytearray]:
        data = yield from super().read_exact(size)
        if not self._head:
            self._head_left += _MORE_LENGTH.get(data[1] & _LENGTH, 0) + (4 if data[1] & _MASKED else 0)
        self._head += data
        self._head_left -= size
        return data

    def _read_text(self, size: int) -> Generator[None, None, bytearray]:
        while len(self.buffer) < size and not self.eof:
            self._look_at(self.buffer)
            yield
        data = yield from super().read_exact(size)
        is_last = bool(self._head[0] & _FIN)
        if self._decoder is not None or not is_last:
            self._look_at(data, is_last)
        return data

    def _look_at(self, payload: bytearray, is_last: bool = False) -> None:
        """Decode what of a payload has not been looked at yet."""
        part: bytes | bytearray = payload[self._seen :]
        if self._head[1] & _MASKED:
            turn = self._seen % 4
            mask = self._head[-4:]
            part = apply_mask(part, mask[turn:] + mask[:turn])
        if self._decoder is None:
            self._decoder = _Utf8()
        self._decoder.decode(part, is_last)
        self._seen += len(part)
        if is_last:
            self._decoder = None
