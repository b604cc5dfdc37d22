"""Where plugins are found, and what a plugin's file may say."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from dari.kernel.plugin_folders import BadSpec, find, scan


def listen(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def test_sockets_come_first_and_folders_in_order(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    listen(two / "acme.sock")
    one.mkdir()
    (one / "acme.spec").write_text("tcp://localhost:99")
    folders = [str(one), str(two)]
    assert find(folders, "acme").path == f"{two}/acme.sock"
    listen(one / "acme" / "acme.sock")
    assert find(folders, "acme").path == f"{one}/acme/acme.sock"
    assert find(folders, "acme").url == f"unix://{one}/acme/acme.sock"


def test_a_socket_made_anew_is_somebody_else(tmp_path):
    listen(tmp_path / "acme.sock")
    first = find([str(tmp_path)], "acme")
    (tmp_path / "acme.sock").unlink()
    listen(tmp_path / "acme.sock")
    assert find([str(tmp_path)], "acme") != first


@pytest.mark.parametrize(
    ("content", "host", "port", "path"),
    [
        ("tcp://localhost:8080\n", "localhost", 8080, ""),
        ("http://10.0.0.1", "10.0.0.1", 80, ""),
        ("unix:///run/elsewhere.sock", "", 0, "/run/elsewhere.sock"),
        ("https://[::1]:444", "::1", 444, ""),
    ],
)
def test_spec_files(tmp_path, content, host, port, path):
    (tmp_path / "acme.spec").write_text(content)
    found = find([str(tmp_path)], "acme")
    assert (found.host, found.port, found.path) == (host, port, path)
    assert (found.tls is not None) == content.startswith("https")
    assert not found.tls or found.tls.is_unverified


def test_a_json_file_and_its_tls(tmp_path):
    folder = tmp_path / "acme"
    folder.mkdir()
    (folder / "acme.json").write_text(
        '{"Name": "acme", "Addr": "https://acme.test:8", "TLSConfig": {"InsecureSkipVerify": false, '
        '"CAFile": "/ca", "CertFile": "/cert", "KeyFile": "/key"}}'
    )
    found = find([str(tmp_path)], "acme")
    assert (found.host, found.port) == ("acme.test", 8)
    assert (found.tls.ca_file, found.tls.cert_file, found.tls.key_file) == ("/ca", "/cert", "/key")
    assert not found.tls.is_unverified


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("acme.spec", "localhost:8080"),
        ("acme.spec", ""),
        ("acme.spec", "ftp://x"),
        ("acme.spec", "tcp://:80"),
        ("acme.spec", "tcp://x:port"),
        ("acme.json", "{"),
        ("acme.json", '{"Addr": 7}'),
        ("acme.json", "{}"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(BadSpec, match=name):
        find([str(tmp_path)], "acme")


@pytest.mark.parametrize("name", ["", ".", "..", "../acme", "a/b", "a\0b", "nobody"])
def test_names_that_lead_nowhere(tmp_path, name):
    listen(tmp_path / "acme.sock")
    inside = tmp_path / "inside"
    inside.mkdir()
    assert find([str(inside), "/no/such/folder"], name) is None


def test_all_names(tmp_path):
    listen(tmp_path / "b.sock")
    listen(tmp_path / "c" / "c.sock")
    listen(tmp_path / "c" / "other.sock")
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "readme.txt").write_text("")
    (tmp_path / "d.sock").write_text("no socket")
    assert scan([str(tmp_path), str(tmp_path / "none")]) == ["a", "b", "c"]
