"""What is wrong with a text that is no JSON, in the words clients of Docker know: those of Go's decoder.

Only walked when a body was refused, so it is written for plainness. Must not know: requests. Source: RFC 8259, and the
texts encoding/json's scanner is observed to answer.
"""

from __future__ import annotations

import re

_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(r"[0-9]*")
_HEX = "0123456789abcdefABCDEF"
_LITERALS = {"t": "true", "f": "false", "n": "null"}
_SHORT = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    "\\": r"\\",
}


class Malformed(Exception):
    """The text breaks off, or a character may not stand where it does; `str` of it is the sentence."""


def end_of_value(body: bytes) -> int:
    """Where the first JSON value of `body` ends, in characters. Raises Malformed where there is none."""
    text = body.decode(errors="replace")
    # Each open object or array, as the character that would close it.
    opened: list[str] = []
    at = _value(text, _space(text, 0), opened)
    while opened:
        at = _space(text, at)
        at = _after(text, at, opened)
    return at


def rest_of(body: bytes) -> str:
    """What follows the first value, blanks aside. Raises Malformed where there is no first value."""
    return body.decode(errors="replace")[end_of_value(body) :].strip(" \t\r\n")


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _at(text: str, at: int) -> str:
    if at >= len(text):
        raise Malformed("unexpected EOF")
    return text[at]


def _refuse(character: str, where: str) -> Malformed:
    return Malformed(f"invalid character {_quoted(character)} {where}")


def _quoted(character: str) -> str:
    if character == "'":
        return r"'\''"
    if character in _SHORT:
        return f"'{_SHORT[character]}'"
    if character.isprintable():
        return f"'{character}'"
    return f"'\\x{ord(character):02x}'" if ord(character) < 0x80 else f"'\\u{ord(character):04x}'"


def _value(text: str, at: int, opened: list[str]) -> int:
    """Past the next scalar or empty object or array, however deep it lies; what was entered is in `opened`."""
    while True:
        first = _at(text, at)
        if first == "{":
            at = _space(text, at + 1)
            if _at(text, at) == "}":
                return at + 1
            opened.append("}")
            at = _key(text, at)
        elif first == "[":
            at = _space(text, at + 1)
            if _at(text, at) == "]":
                return at + 1
            opened.append("]")
        elif first == '"':
            return _string(text, at + 1)
        elif first in _LITERALS:
            return _literal(text, at, _LITERALS[first])
        elif first == "-" or _is_digit(first):
            return _number(text, at)
        else:
            raise _refuse(first, "looking for beginning of value")


def _key(text: str, at: int) -> int:
    """Past a member's name and colon: where its value begins."""
    first = _at(text, at)
    if first != '"':
        raise _refuse(first, "looking for beginning of object key string")
    at = _space(text, _string(text, at + 1))
    colon = _at(text, at)
    if colon != ":":
        raise _refuse(colon, "after object key")
    return _space(text, at + 1)


def _after(text: str, at: int, opened: list[str]) -> int:
    """Past what follows a member of the innermost open object or array: its end, or the next member."""
    found = _at(text, at)
    if found == opened[-1]:
        opened.pop()
        return at + 1
    if opened[-1] == "}":
        if found != ",":
            raise _refuse(found, "after object key:value pair")
        return _value(text, _key(text, _space(text, at + 1)), opened)
    if found != ",":
        raise _refuse(found, "after array element")
    return _value(text, _space(text, at + 1), opened)


def _string(text: str, at: int) -> int:
    while True:
        plain = _PLAIN.match(text, at)
        at = plain.end() if plain else at
        found = _at(text, at)
        if found == '"':
            return at + 1
        if found != "\\":
            raise _refuse(found, "in string literal")
        escaped = _at(text, at + 1)
        at += 2
        if escaped == "u":
            for _ in range(4):
                if _at(text, at) not in _HEX:
                    raise _refuse(text[at], r"in \u hexadecimal character escape")
                at += 1
        elif escaped not in '"\\/bfnrt':
            raise _refuse(escaped, "in string escape code")


def _literal(text: str, at: int, word: str) -> int:
    for offset, wanted in enumerate(word):
        found = _at(text, at + offset)
        if found != wanted:
            raise _refuse(found, f"in literal {word} (expecting '{wanted}')")
    return at + len(word)


def _number(text: str, at: int) -> int:
    if text[at] == "-":
        at += 1
        if not _is_digit(_at(text, at)):
            raise _refuse(text[at], "in numeric literal")
    at = at + 1 if text[at] == "0" else _digits(text, at)
    if text[at : at + 1] == ".":
        if not _is_digit(_at(text, at + 1)):
            raise _refuse(text[at + 1], "after decimal point in numeric literal")
        at = _digits(text, at + 1)
    if text[at : at + 1] in ("e", "E"):
        at += 1
        if _at(text, at) in "+-":
            at += 1
        if not _is_digit(_at(text, at)):
            raise _refuse(text[at], "in exponent of numeric literal")
        at = _digits(text, at)
    return at


def _digits(text: str, at: int) -> int:
    found = _DIGITS.match(text, at)
    return found.end() if found else at


def _is_digit(character: str) -> bool:
    return character.isascii() and character.isdigit()
