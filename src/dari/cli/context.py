"""What every command needs: the engine, and where text goes. The client is loaded when first used."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dari.client.docker import Docker


class Failed(Exception):
    """A command failed: `text` for the user ("" when all was said already) and the exit code."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class Context:
    """One run of the command line."""

    def __init__(self, host: str | None = None, is_debug: bool = False) -> None:
        self.host = host
        self.is_debug = is_debug
        self._docker: Docker | None = None

    @property
    def docker(self) -> Docker:
        """The engine's client; connects at its first request."""
        if self._docker is None:
            from dari.client.docker import Docker

            self._docker = Docker(self.host)
        return self._docker

    def say(self, text: str) -> None:
        """A line for stdout."""
        print(text, flush=True)

    def write(self, data: bytes) -> None:
        """Bytes for stdout, as they are."""
        view = memoryview(data)
        sys.stdout.flush()
        while view:
            view = view[os.write(1, view) :]

    def complain(self, text: str) -> None:
        """A line for stderr."""
        print(text, file=sys.stderr, flush=True)

    def each(self, names: list[str], act: object) -> int:
        """Call `act(name)` for each and say the name; errors are said and the rest still done."""
        from dari.client.errors import ApiError

        assert callable(act)
        failed = False
        for name in names:
            try:
                self.say(act(name) or name)
            except ApiError as error:
                failed = True
                self.complain(str(error))
        return 1 if failed else 0
