"""Who a process runs as: `user[:group]` against the /etc/passwd and /etc/group of the container.

Texts of errors are Docker's. Pure: the caller reads the files. Must not know: root file systems, OCI.
Formats: passwd(5), group(5).
"""

from __future__ import annotations

from dari.model.errors import InvalidArgument
from dari.model.wire import Noun

_MAX_ID = 2**31 - 1


class User(Noun, frozen=True, kw_only=True):
    """`groups` are the supplementary ones, the primary first."""

    uid: int = 0
    gid: int = 0
    groups: list[int] = []
    home: str = "/"


class _Passwd(Noun, frozen=True):
    name: str
    uid: int
    gid: int
    home: str


class _Group(Noun, frozen=True):
    name: str
    gid: int
    members: list[str]


def find_user(spec: str, passwd: str, group: str, group_add: list[str] | None = None) -> User:
    """The user that `spec` (`""`, `name`, `uid`, `name:group`, `uid:gid`) names.

    `passwd` and `group` are the contents of the files, empty where there are none. Raises InvalidArgument for an
    unknown name or an id out of range.
    """
    user_part, colon, group_part = spec.partition(":")
    accounts = _read_passwd(passwd)
    groups = _read_groups(group)
    uid_asked = _number(user_part) if user_part else 0
    account = next(
        (a for a in accounts if (user_part and a.name == user_part) or (a.uid == uid_asked)),
        None,
    )
    if account is not None:
        uid, gid, home, name = account.uid, account.gid, account.home or "/", account.name
    elif uid_asked is None:
        raise InvalidArgument(f"unable to find user {user_part}: no matching entries in passwd file")
    else:
        uid, gid, home, name = uid_asked, 0, "/", ""
    _check_range(uid)
    extra: list[int] = []
    if colon and group_part:
        gid = _find_gid(group_part, groups)
        if gid < 0:
            raise InvalidArgument(f"unable to find group {group_part}: no matching entries in group file")
    else:
        extra = [g.gid for g in groups if name and name in g.members]
    for asked in group_add or []:
        found = _find_gid(asked, groups)
        if found < 0:
            raise InvalidArgument(f"Unable to find group {asked}: no matching entries in group file")
        extra.append(found)
    _check_range(gid)
    return User(uid=uid, gid=gid, groups=list(dict.fromkeys([gid, *extra])), home=home)


def _find_gid(asked: str, groups: list[_Group]) -> int:
    """-1 if there is none. A group of that name wins over a number."""
    number = _number(asked)
    for entry in groups:
        if entry.name == asked or entry.gid == number:
            return entry.gid
    if number is None:
        return -1
    _check_range(number)
    return number


def _check_range(number: int) -> None:
    if not 0 <= number <= _MAX_ID:
        raise InvalidArgument("uids and gids must be in range 0-2147483647")


def _number(text: str) -> int | None:
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() else None


def _read_passwd(text: str) -> list[_Passwd]:
    entries = []
    for fields in _fields(text):
        if len(fields) < 3 or (uid := _number(fields[2])) is None:
            continue
        gid = _number(fields[3]) if len(fields) > 3 else None
        entries.append(_Passwd(fields[0], uid, gid or 0, fields[5] if len(fields) > 5 else ""))
    return entries


def _read_groups(text: str) -> list[_Group]:
    entries = []
    for fields in _fields(text):
        if len(fields) < 3 or (gid := _number(fields[2])) is None:
            continue
        members = fields[3].split(",") if len(fields) > 3 and fields[3] else []
        entries.append(_Group(fields[0], gid, members))
    return entries


def _fields(text: str) -> list[list[str]]:
    lines = (line.strip() for line in text.splitlines())
    return [line.split(":") for line in lines if line and not line.startswith(("#", "+", "-"))]
