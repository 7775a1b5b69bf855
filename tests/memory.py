"""How many bytes an object holds: found by following references, whatever its attributes are called."""

import gc
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

_ELSEWHERE = (type, ModuleType, FunctionType, BuiltinFunctionType)


def bytes_held_by(thing: Any) -> int:
    """Return the length of all bytes and bytearrays that `thing` refers to, through any number of objects."""
    found, seen, ahead = 0, set(), [thing]
    while ahead:
        each = ahead.pop()
        if id(each) in seen or isinstance(each, _ELSEWHERE):
            continue
        seen.add(id(each))
        if isinstance(each, bytes | bytearray):
            found += len(each)
        ahead.extend(gc.get_referents(each))
    return found
