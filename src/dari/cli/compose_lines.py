"""Where in a Compose file a setting stands: from a cause's files and keys to `file:line: text`.

The files are read where they lie; one that is gone or elsewhere has no line. Must not know: what the cause is about.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

_POLICY = "x-policy"


def line_of(files: Sequence[str], key: Sequence[str], working_dir: str = "") -> str:
    """`/srv/shop/compose.yaml:12: internal: true` of the last file that has it, or of the nearest key above; empty
    where none of them can be read."""
    from dari.compose.load import yaml
    from dari.compose.load.errors import ComposeError

    read: list[tuple[str, str, list[yaml.Document]]] = []
    for name in files:
        path = os.path.join(working_dir, name)
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read()
            read.append((path, text, yaml.parse(text, path)))
        except (OSError, UnicodeDecodeError, ComposeError):
            # Somebody changed or moved it since: then there is no line to show.
            continue
    paths = [tuple(key[:end]) for end in range(len(key), 0, -1)]
    if key and key[-1] == _POLICY:
        # A service's policy may be the file's.
        paths.insert(1, (_POLICY,))
    for wanted in paths:
        for path, text, documents in reversed(read):
            for document in documents:
                mark = document.marks.exact(wanted)
                if mark is not None:
                    return f"{path}:{mark.line}: {text.splitlines()[mark.line - 1].strip()}"
    return ""
