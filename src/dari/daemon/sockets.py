"""The sockets clients connect to: unix with a group, tcp with TLS client certificates, inherited ones.

Must not know: HTTP.
"""

from __future__ import annotations

import grp
import os
import socket
import ssl
from dataclasses import dataclass

from dari.model.config import Config
from dari.model.errors import InvalidArgument, Unavailable

DOCKER_SOCKET = "/var/run/docker.sock"
_FIRST_INHERITED = 3  # sd_listen_fds(3)


@dataclass(slots=True)
class Listener:
    """An open, listening socket. `path` is the unix socket to remove at the end, if nobody replaced it."""

    socket: socket.socket
    url: str
    tls: ssl.SSLContext | None = None
    path: str = ""
    inode: int = 0

    def remove(self) -> None:
        self.socket.close()
        if self.path:
            try:
                if os.stat(self.path).st_ino == self.inode:
                    os.unlink(self.path)
            except FileNotFoundError:
                return


def open_all(config: Config) -> list[Listener]:
    """All of `config.hosts`; without any the default socket, and Docker's where nobody listens there.

    Raises InvalidArgument, Unavailable; nothing stays open then.
    """
    opened: list[Listener] = []
    try:
        if config.hosts:
            for url in config.hosts:
                opened.extend(_open(url, config))
        else:
            opened.append(_open_unix(f"{config.exec_root}/dari.sock", config.group))
            if config.exec_root == Config().exec_root and not is_answering(DOCKER_SOCKET):
                opened.append(_open_unix(DOCKER_SOCKET, config.group))
    except BaseException:
        for each in opened:
            each.remove()
        raise
    return opened


def is_answering(path: str) -> bool:
    """Whether somebody listens on a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


def _open(url: str, config: Config) -> list[Listener]:
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "tcp", url
    match scheme:
        case "unix":
            return [_open_unix(rest or f"{config.exec_root}/dari.sock", config.group)]
        case "tcp":
            return [_open_tcp(rest, config)]
        case "fd":
            return _inherited()
        case _:
            raise InvalidArgument(f"invalid listener {url!r}: unix://, tcp:// and fd:// are known")


def _open_unix(path: str, group: str) -> Listener:
    if is_answering(path):
        raise Unavailable(f"{path} is in use: another engine answers there")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o117)
    try:
        listener.bind(path)
    except OSError as error:
        listener.close()
        raise Unavailable(f"cannot listen on {path}: {error.strerror}") from error
    finally:
        os.umask(old)
    os.chown(path, 0, _group_id(group))
    os.chmod(path, 0o660)
    listener.listen(1024)
    return Listener(listener, f"unix://{path}", path=path, inode=os.stat(path).st_ino)


def _group_id(group: str) -> int:
    """The group's id; the default group need not exist, then it is root's."""
    if group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group != Config().group:
            raise InvalidArgument(f"group {group} not found") from None
        return 0


def _open_tcp(address: str, config: Config) -> Listener:
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(config.tls_ca)
        context.load_cert_chain(config.tls_cert, config.tls_key)
        listener = socket.create_server(
            (host, int(port or 2376)), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024
        )
    except (OSError, ValueError) as error:
        raise Unavailable(f"cannot listen on tcp://{address}: {error}") from error
    return Listener(listener, f"tcp://{address}", tls=context)


def _inherited() -> list[Listener]:
    """What systemd hands over (socket activation)."""
    count = int(os.environ.get("LISTEN_FDS", "0")) if os.environ.get("LISTEN_PID") == str(os.getpid()) else 0
    if not count:
        raise InvalidArgument(
            "no sockets found via socket activation: make sure the service was started by systemd"
        )
    found = []
    for number in range(_FIRST_INHERITED, _FIRST_INHERITED + count):
        os.set_inheritable(number, False)
        found.append(Listener(socket.socket(fileno=number), f"fd://{number}"))
    return found
