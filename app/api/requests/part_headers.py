"""The header of a form's part: its name and its file's name, as browsers, SDKs and curl write them. Pure."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

_LONGEST_FILENAME = 255
# name=token or name="quoted", with \" and \\ inside the quotes; possessive, so linear.
_PARAMETER = re.compile(rb';[ \t]*+([^\s=;"]++)[ \t]*+=[ \t]*+(?:"((?:[^"\\]|\\.)*+)"|([^;]*+))', re.DOTALL)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


def disposition(header: bytes) -> tuple[str | None, str | None]:
    """Return the field's name and the file's name of a Content-Disposition. A part without a file's name is text."""
    if header.partition(b";")[0].strip().lower() != b"form-data":
        return None, None
    given = parameters(header)
    name, filename = given.get(b"name"), given.get(b"filename")
    extended = _decode_extended(given.get(b"filename*", b""))
    if extended is None and filename is not None:
        extended = _text(filename)
    return _text(name) if name else None, extended[:_LONGEST_FILENAME] if extended is not None else None


def parameters(header: bytes) -> dict[bytes, bytes]:
    """Return the decoded parameters of a header such as `form-data; name="x"`: of one name the first."""
    found: dict[bytes, bytes] = {}
    for name, quoted, token in _PARAMETER.findall(header):
        value = re.sub(rb'\\(["\\])', rb"\1", quoted) if quoted else token.strip()
        found.setdefault(name.lower(), value)
    return found


def _text(raw: bytes) -> str:
    """Decode UTF-8 as all SDKs send it, else Latin-1. The HTML standard writes a quote inside the quotes as `%22`."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return _CONTROLS.sub("", text.replace("%22", '"'))


def _decode_extended(value: bytes) -> str | None:
    """Decode RFC 8187: `UTF-8''na%C3%AFve.png`. Returns None if it is malformed."""
    charset, _, rest = value.partition(b"'")
    _, quote, escaped = rest.partition(b"'")
    if not quote or charset.lower() not in (b"utf-8", b"iso-8859-1"):
        return None
    try:
        text = unquote_to_bytes(escaped).decode(charset.decode())
    except UnicodeDecodeError:
        return None
    return _CONTROLS.sub("", text)
