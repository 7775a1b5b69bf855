"""Find the end of a body in chunks by the lines of sizes alone: to search all bytes costs half of parsing them."""

from __future__ import annotations


class Chunks:
    """Follows a body from piece to piece. Leaves broken framing to the parser, which refuses it."""

    __slots__ = ("_left", "_line", "is_over")

    def __init__(self) -> None:
        self.is_over = False  # nothing is left but the empty line at the end, and trailers before it
        self._left = 0  # bytes of the chunk, and of the end of its line
        self._line = b""  # the beginning of a line of which the rest is to come

    def find_end(self, data: bytes, at: int) -> int:
        """Return where in `data`, from `at`, the line of the last size ends; the end of `data` if it is yet to come."""
        size = len(data)
        while True:
            step = min(self._left, size - at)
            at += step
            self._left -= step
            if at == size:
                return size
            stop = data.find(b"\n", at)
            if stop < 0:
                self._line += data[at:]
                return size
            line, self._line = self._line + data[at:stop], b""
            length = _length(line)
            if length <= 0:
                self.is_over = True
                return max(at, stop - 1)
            at, self._left = stop + 1, length + 2


def _length(line: bytes) -> int:
    """Return the size in a line; 0 if it holds none."""
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError:
        return 0
