"""What DUMP gives: which type it is of, by how it begins."""

from __future__ import annotations

UNKNOWN = "unknown"

_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_CHARACTERS_OF_NAME = 9
_MODULES = (b"\x06", b"\x07")
_TYPES = {
    "string": (0,),
    "list": (1, 10, 14, 18),
    "set": (2, 11, 20),
    "zset": (3, 5, 12, 17),
    "hash": (4, 9, 13, 16, 22, 23, 24, 25),
    "stream": (15, 19, 21),
}
_BY_BYTE = {bytes([byte]): name for name, bytes_ in _TYPES.items() for byte in bytes_}


def type_of(dump: bytes) -> str:
    """The type as TYPE names it, or "unknown" for one that came after this was written.

    A value of a module names its type in nine characters of six bits.
    """
    known = _BY_BYTE.get(dump[:1])
    if known is not None:
        return known
    if dump[:1] in _MODULES and len(dump) > _CHARACTERS_OF_NAME and dump[1] == 0x81:
        bits = int.from_bytes(dump[2:10], "big") >> 10
        places = [bits >> 6 * place & 63 for place in reversed(range(_CHARACTERS_OF_NAME))]
        return "".join([_CHARACTERS[place] for place in places])
    return UNKNOWN
