"""A certificate authority for one test, made by openssl: for a server, a client, and without a name; and another CA."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path
    nameless: Path
    nameless_key: Path
    strangers_ca: Path

    @property
    def server_pem(self) -> Path:
        """Key and certificate in one file, as ZooKeeper wants its key store."""
        path = self.server.with_name("server-store.pem")
        path.write_text(self.server_key.read_text() + self.server.read_text())
        return path


def make(folder: Path) -> Certificates:
    _authority(folder, "ca")
    _authority(folder, "stranger")
    for name, subject in (("server", "/CN=server"), ("client", "/CN=client"), ("nameless", "/O=dari")):
        key, request, made = (folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
        _openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", subject)
        extensions = folder / "extensions"
        extensions.write_text("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
        _openssl(
            *("x509", "-req", "-in", request, "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key"),
            *("-CAcreateserial", "-days", "2", "-out", made, "-extfile", extensions),
        )
    return Certificates(
        ca=folder / "ca.pem",
        server=folder / "server.pem",
        server_key=folder / "server.key",
        client=folder / "client.pem",
        client_key=folder / "client.key",
        nameless=folder / "nameless.pem",
        nameless_key=folder / "nameless.key",
        strangers_ca=folder / "stranger.pem",
    )


def _authority(folder: Path, name: str) -> None:
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
        *("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"),
        *("-addext", "keyUsage=critical,keyCertSign"),
    )


def _openssl(*words: object) -> None:
    subprocess.run(["openssl", *(str(word) for word in words)], check=True, capture_output=True)
