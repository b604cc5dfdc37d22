"""Graphviz draws a text into a file. Must not know: what is drawn."""

from __future__ import annotations

from dari.cli.context import Failed


def write(text: str, kind: str, path: str, code: int = 1) -> None:
    """`text` in the DOT language as a picture of `kind` (svg, png). Raises Failed with this exit code where Graphviz
    is not installed or does not write the file."""
    import shutil
    import subprocess

    program = shutil.which("dot")
    if program is None:
        raise Failed(
            f"{path}: Graphviz draws pictures and is not installed (Debian: apt install graphviz); "
            "without a file the drawing is printed",
            code,
        )
    done = subprocess.run(
        [program, f"-T{kind}", "-o", path], input=text.encode(), capture_output=True, check=False
    )
    if done.returncode:
        raise Failed(f"{path}: {done.stderr.decode(errors='replace').strip() or 'dot failed'}", code)
