"""Why a text is no JSON, in Go's words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dari.api import jsontext

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x", "invalid character 'x' looking for beginning of value"),
        ("{x", "invalid character 'x' looking for beginning of object key string"),
        ("{'a'", r"invalid character '\'' looking for beginning of object key string"),
        ('{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1 "b"', "invalid character '\"' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        ('"a\nb"', r"invalid character '\n' in string literal"),
        (r'"\x"', "invalid character 'x' in string escape code"),
        (r'"\u12g4"', r"invalid character 'g' in \u hexadecimal character escape"),
        ("-x", "invalid character 'x' in numeric literal"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("1e+x", "invalid character 'x' in exponent of numeric literal"),
        ("nul!", "invalid character '!' in literal null (expecting 'l')"),
        ('{"a": [1', "unexpected EOF"),
        ('"a', "unexpected EOF"),
        ("tru", "unexpected EOF"),
    ],
)
def test_the_sentence_says_what_stands_where(text: str, why: str) -> None:
    with pytest.raises(jsontext.Malformed) as found:
        jsontext.rest_of(text.encode())
    assert str(found.value) == why


@given(_JSON, st.sampled_from(["", " ", "\n", " trash", "{}", "]"]), st.sampled_from([None, 1]))
def test_json_is_walked_to_its_end(value: Any, after: str, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    # Digits would go on with a number.
    assert jsontext.rest_of((text + after).encode()) == after.strip()
