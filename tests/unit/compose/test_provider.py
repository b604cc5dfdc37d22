"""Programs that provide services."""

from __future__ import annotations

from pathlib import Path

import pytest

from dari.compose import provider


def program(folder: Path, text: str) -> str:
    path = folder / "prov"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_the_command_line() -> None:
    words = provider.command("/x", "p", "up", "db", {"type": ["mysql"], "tag": ["a", "b"]})
    assert words == ["/x", "compose", "--project-name=p", "up", "--type=mysql", "--tag=a", "--tag=b", "db"]


def test_what_it_says(tmp_path: Path) -> None:
    path = program(
        tmp_path,
        """
echo '{"type": "info", "message": "half"}'
echo '{"type": "get-service-config"}'; read config
echo "{\\"type\\": \\"rawsetenv\\", \\"message\\": \\"GOT=$(printf %s "$config" | wc -c)\\"}"
echo '{"type": "setenv", "message": "URL=http://x?a=b"}'
echo '{"type": "debug", "message": "noise"}'
""",
    )
    said: list[str] = []
    found = provider.run([path], "my-db", {"a": 1}, said.append)
    assert found == {"GOT": "8", "MY_DB_URL": "http://x?a=b"}
    assert said == ["half"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exit 3", "prov: exit status 3"),
        ("""echo '{"type": "error", "message": "no luck"}'""", "no luck"),
        ("echo hello", "invalid response from provider: hello"),
        ("""echo '{"type": "odd", "message": ""}'""", "invalid response"),
        ("""echo '{"type": "setenv", "message": "X"}'""", "invalid response"),
    ],
)
def test_what_goes_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(provider.ProviderError, match=message):
        provider.run([program(tmp_path, text)], "db", {}, lambda text: None)


def test_finding_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path, """test "$2" = metadata && echo '{"stop": {}}'""")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert provider.find("prov") == path
    assert provider.knows_stop(path)
    assert not provider.knows_stop("/bin/true")
    with pytest.raises(provider.ProviderError, match="executable file not found"):
        provider.find("no-such-provider")
