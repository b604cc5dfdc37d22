"""Words of a Dockerfile instruction such as `ENV A="b c" D=$E`.

Pure. Source: the Dockerfile reference, "Environment replacement": single quotes keep everything, a backslash takes the
meaning of a quote, a dollar or a blank away, `$NAME`, `${NAME}`, `${NAME:-word}` and `${NAME:+word}` are replaced.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_PIECE = re.compile(
    r"""(?P<blank>\s+) | '(?P<single>[^']*)' | (?P<double>") | \\(?P<escaped>.) |
        \$(?P<name>\w+) | \$\{(?P<braced>\w+)(?::(?P<kind>[-+])(?P<word>[^}]*))?\} | (?P<plain>.)""",
    re.VERBOSE | re.DOTALL,
)


def words(text: str, env: Mapping[str, str]) -> list[str]:
    """Split at blanks outside quotes. Raises ValueError where a quote is not closed."""
    found: list[str] = []
    word, is_word, is_quoted = "", False, False
    position = 0
    while position < len(text):
        piece = _PIECE.match(text, position)
        assert piece is not None, "`plain` takes any character"
        if piece["single"] is not None and is_quoted:
            # Inside double quotes an apostrophe is one.
            word, position = f"{word}'", position + 1
            continue
        position = piece.end()
        if piece["blank"] is not None and not is_quoted:
            if is_word:
                found.append(word)
            word, is_word = "", False
            continue
        is_word = True
        if piece["double"] is not None:
            is_quoted = not is_quoted
        elif piece["single"] is not None:
            word += piece["single"]
        elif piece["plain"] == "'" and not is_quoted:
            raise ValueError("unexpected end of statement while looking for matching single-quote")
        elif piece["escaped"] is not None and is_quoted and piece["escaped"] not in '"$\\':
            word += piece[0]
        else:
            word += _value(piece, env)
    if is_quoted:
        raise ValueError("unexpected end of statement while looking for matching double-quote")
    return [*found, word] if is_word else found


def _value(piece: re.Match[str], env: Mapping[str, str]) -> str:
    name = piece["name"] or piece["braced"]
    if name is None:
        return piece["escaped"] or piece[0]
    value = env.get(name, "")
    if piece["kind"] == "-":
        return value or piece["word"]
    if piece["kind"] == "+":
        return piece["word"] if value else ""
    return value
