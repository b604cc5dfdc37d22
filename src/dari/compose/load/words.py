"""A command line in one string to its words, as Docker Compose splits it. Pure.

Not quite a shell: `$(…)` and backquotes stay as they are written, a backslash takes the next character as it is
also inside double quotes, and an unquoted `;`, `&`, `|`, `<` or `>` ends the command: what follows is dropped
(who wants a shell writes `sh -c "…"`).
"""

from __future__ import annotations

_END = frozenset(";&|<>")
_BLANK = frozenset(" \t\r\n")


def split(text: str) -> list[str]:
    """The words. Raises ValueError for an open quote or a stray parenthesis."""
    words: list[str] = []
    word: list[str] = []
    is_begun, is_escaped, quote = False, False, ""
    for char in text:
        if is_escaped:
            word.append(char)
            is_begun, is_escaped = True, False
        elif char == "\\" and quote != "'":
            is_escaped = True
        elif quote in ("'", '"'):
            if char == quote:
                quote = ""
            else:
                word.append(char)
        elif quote:
            word.append(char)
            if char == ("`" if quote == "`" else ")"):
                quote = ""
        elif char in _BLANK:
            if is_begun:
                words.append("".join(word))
            word, is_begun = [], False
        elif char in ("'", '"'):
            quote, is_begun = char, True
        elif char == "`":
            quote, is_begun = char, True
            word.append(char)
        elif char == "(":
            if not word or word[-1] != "$":
                raise ValueError("invalid command line string")
            quote = char
            word.append(char)
        elif char in _END:
            if char == ">" and word and word[0].isdigit():
                is_begun = False
            break
        else:
            word.append(char)
            is_begun = True
    if is_escaped or quote:
        raise ValueError("invalid command line string")
    if is_begun:
        words.append("".join(word))
    return words
