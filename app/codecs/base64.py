"""Decode base64 text that comes in pieces of any length, as far as its groups of four are whole."""

from __future__ import annotations

import pybase64


class Base64Carry:
    __slots__ = ("_carry",)

    def __init__(self) -> None:
        self._carry = b""

    def decode(self, text: bytes) -> bytes:
        """Return the bytes that `text` completes. Raises ValueError if it is no base64."""
        if self._carry:
            text = self._carry + text
        whole = len(text) & ~3
        self._carry = text[whole:]
        data: bytes = pybase64.b64decode(memoryview(text)[:whole] if self._carry else text, validate=True)
        return data

    @property
    def is_cut(self) -> bool:
        """True if the text so far ends in the middle of a group."""
        return bool(self._carry)
