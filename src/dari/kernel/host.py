"""The kernel room's door: read, apply, facts.

Synchronous; every call may block for milliseconds and belongs into a worker thread. Calls from several threads take
turns. The object acts on the network namespace its maker's thread is in. Must not know: stores, who asked.
Next: read.py, apply.py.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from dari.kernel import arp, asking, nfnetlink, rtnetlink, sublinks, wireguard
from dari.kernel.alarm import Alarm
from dari.kernel.apply import Applier
from dari.kernel.burial import Gravedigger
from dari.kernel.conntrack import Connections, publish_of, subnets_of
from dari.kernel.errors import KernelError, NetlinkError, NftError
from dari.kernel.facts import facts
from dari.kernel.look import listeners, look
from dari.kernel.mend import mend
from dari.kernel.mould import Mould
from dari.kernel.moved import find_link
from dari.kernel.netns import Namespaces
from dari.kernel.nft import Nft, rules_of
from dari.kernel.outside import Places
from dari.kernel.probe import Probing
from dari.kernel.read import read
from dari.kernel.survey import survey
from dari.kernel.tunnel_alarm import TunnelAlarm
from dari.kernel.underlay import OwnAddress, own_address
from dari.kernel.visit import Visit, Visits
from dari.net.facts import HostFacts
from dari.net.foreign import Foreign
from dari.net.packet import Listeners
from dari.net.plan import Plan
from dari.net.scope import Scope
from dari.net.state import HOST, Addr, Address, KernelState, Prefix
from dari.net.survey import Repair, Survey


class Kernel:
    """Make it early (libnftables needs a descriptor below 1024) and close it at the end.

    `netns_dir` is made where missing. Raises OSError where rights or libnftables are missing.
    """

    def __init__(self, netns_dir: str) -> None:
        self._lock = threading.Lock()
        self._namespaces = Namespaces(netns_dir)
        self._namespaces.sweep()
        self._nft = Nft()
        self._mould = Mould(self._namespaces)
        self._host = Visit(self._namespaces, HOST, None)
        self._host.open(has_netfilter=True)
        self._connections = Connections()
        self._private_keys: dict[str, bytes] = {}
        self._has_wireguard: bool | None = None
        self.alarm = Alarm()
        self.tunnel_alarm = TunnelAlarm()
        self._gravedigger = Gravedigger(self._connections)
        # What an earlier daemon had no time to delete.
        self._gravedigger.wake()

    def read(self, scope: Scope) -> KernelState:
        """What is dari's, or the objects of the scope's keys that exist. Raises KernelError."""
        with self._lock:
            try:
                return read(scope, self._namespaces, self._host, self._nft, self._mould)
            except NftError as error:
                raise KernelError(None, error.errno, error.text) from error
            except OSError as error:
                raise KernelError(None, error.errno or 0, error.strerror or str(error)) from error

    def facts(self, names: Iterable[str] = ()) -> HostFacts:
        """Facts of the host's namespace, and of these interfaces of its. Raises KernelError."""
        with self._lock:
            try:
                return facts(self._host, names)
            except NetlinkError as error:
                raise KernelError(None, error.errno or 0, error.strerror or "") from error

    def look(self, names: Iterable[str] | None = None) -> Foreign:
        """What is not dari's and decides about packets, on the host and in these sandboxes (None: all).

        Raises KernelError.
        """
        with self._lock:
            try:
                return look(self._namespaces, self._host, self._nft, names)
            except OSError as error:
                raise KernelError(None, error.errno or 0, error.strerror or str(error)) from error

    def listeners(self, names: Iterable[str]) -> Listeners:
        """The sockets that take packets in these namespaces ("" the host's). Raises KernelError."""
        with self._lock:
            try:
                return listeners(self._namespaces, self._host, names)
            except OSError as error:
                raise KernelError(None, error.errno or 0, error.strerror or str(error)) from error

    def has_link_kind(self, kind: str) -> bool:
        """Whether the kernel can make links of that kind (`macvlan`, `vlan`); asking loads its module."""
        with self._lock:
            _, errors = self._host.route.request([sublinks.probe_kind(kind)])
            return not any(error.errno == errno.EOPNOTSUPP for error in errors)

    def has_wireguard(self) -> bool:
        """Whether the kernel can encrypt; asked once, which loads the module. Raises KernelError."""
        with self._lock:
            if self._has_wireguard is None:
                try:
                    self._has_wireguard = wireguard.is_there(self._host.generic)
                except OSError as error:
                    # A kernel may lack generic netlink altogether.
                    if error.errno not in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT):
                        raise KernelError(None, error.errno or 0, error.strerror or "") from error
                    self._has_wireguard = False
            return self._has_wireguard

    def hold_key(self, public: str, private: bytes) -> None:
        """What WireGuard interfaces with that public key (base64) are to be given. States and plans never have it."""
        self._private_keys[public] = private

    def drop_key(self, public: str) -> None:
        """Forget what `hold_key` was given: no interface is to have it any more."""
        self._private_keys.pop(public, None)

    def own_address(self, asked: str) -> OwnAddress | None:
        """The host's address that `asked` means (see underlay.own_address). Raises KernelError."""
        with self._lock:
            try:
                return own_address(self._host, asked)
            except NetlinkError as error:
                raise KernelError(None, error.errno or 0, error.strerror or "") from error

    def apply(self, plan: Plan) -> None:
        """Carry out the plan. What can be done is done even where a step fails; the first failure is raised.

        Raises KernelError; its `others` are the further ones. Deleting what is missing is no failure.
        """
        if plan.is_empty:
            return
        with self._lock, Visits(self._namespaces, self._host) as visits:
            applier = Applier(
                self._namespaces,
                visits,
                self._host,
                self._nft,
                self._mould,
                self._connections,
                self._private_keys,
            )
            try:
                applier.run(plan)
            except OSError as error:
                failure = KernelError(None, error.errno or 0, error.strerror or str(error))
                applier.failed.append(failure)
            finally:
                if applier.has_buried:
                    self._gravedigger.wake()
            if applier.failed:
                first = applier.failed[0]
                first.others = tuple(applier.failed[1:])
                raise first

    def mac_of(self, name: str) -> str:
        """The hardware address of an interface of the host's namespace, empty where there is none.

        Raises KernelError.
        """
        with self._lock:
            try:
                link = find_link(self._host.route, name)
            except NetlinkError as error:
                raise KernelError(None, error.errno or 0, error.strerror or "") from error
            return link.mac if link is not None else ""

    def check_connections(self, wanted: KernelState, absent: Iterable[Prefix] = ()) -> None:
        """Forget connections that contradict `wanted`, which is everything there should be: its published ports, and
        addresses nobody has any more (a daemon may have been killed between their end and their connections').

        `absent`: subnets of networks that have been on this host and are not in `wanted`.
        """
        publishes = [each for each in map(publish_of, wanted) if each is not None]
        subnets = [*subnets_of(wanted), *absent]
        held = {each.address.ip for each in wanted if isinstance(each, Addr)}
        self._connections.check(publishes, subnets)
        self._connections.forget_orphans(publishes, subnets, held)

    def probing(
        self,
        names: Iterable[str],
        places: Places | None = None,
        *,
        is_traced: bool = True,
        ports: Sequence[int] = (),
    ) -> Probing:
        """A round of real probes from and to these namespaces; with `ports` of another host's, to see its packets here.
        It waits for answers and holds no lock meanwhile: call it from a thread of its own. Raises NetlinkError,
        OSError."""
        return Probing(self._namespaces, names, self._rules_of, places, is_traced=is_traced, ports=ports)

    def link_names(self, indexes: Iterable[int]) -> dict[int, str]:
        """The host's interfaces by number; those that are gone are left out. Raises NetlinkError."""
        with self._lock:
            answers, _ = self._host.route.request(
                [rtnetlink.get_link(index=each) for each in sorted(indexes)]
            )
        links = [rtnetlink.read_link(answer[0]) for answer in answers if answer]
        return {link.index: link.name for link in links}

    def _rules_of(self, visit: Visit, family: str, table: str, chain: str) -> dict[int, str]:
        """A chain's rules by handle, anybody's; none where nft cannot list them."""
        with self._lock:
            try:
                if visit.name == HOST:
                    listing = self._nft.list_chain(family, table, chain)
                else:
                    with visit.entered():
                        nft = Nft()
                        try:
                            listing = nft.list_chain(family, table, chain)
                        finally:
                            nft.close()
                comments = nfnetlink.match_comments(visit.netfilter, nfnetlink.FAMILIES[family], table)
            except (NftError, OSError, KeyError):
                # A table made by what this libnftables does not know, or no descriptor left below 1024 for it: the
                # chain and the rule's number are named all the same.
                return {}
        found = {handle: text for text, handle in rules_of(listing or "")}
        for handle in comments.keys() & found.keys():
            if " comment " not in found[handle]:
                found[handle] += f' comment "{comments[handle]}"'
        return found

    def survey(
        self,
        wanted: KernelState,
        paths: Iterable[str],
        addresses: Mapping[str, Mapping[IPv4Address, bool]],
        held: Collection[Address],
    ) -> Survey:
        """What surrounds the objects of `wanted`, which is everything there should be; nothing is changed.

        `paths`: sysctls of the host to read. `addresses`: by bridge, those to ask for on the wire (arp.py). `held`: all
        addresses somebody has. Raises KernelError.
        """
        with self._lock:
            try:
                # First, so that the bridges have learnt behind which port an answer came from.
                answered = arp.ask(self._host, addresses)
                found = survey(wanted, paths, self._namespaces, self._host, self._nft, self._mould)
                publishes = [each for each in map(publish_of, wanted) if each is not None]
                stale = self._connections.stale(publishes, subnets_of(wanted), held)
            except NftError as error:
                raise KernelError(None, error.errno, error.text) from error
            except OSError as error:
                raise KernelError(None, error.errno or 0, error.strerror or str(error)) from error
        return replace(found, answered=answered, stale=tuple(stale))

    def mend(self, repairs: Sequence[Repair]) -> None:
        """Raises KernelError for the first repair that fails; the others are done."""
        with self._lock, Visits(self._namespaces, self._host) as visits:
            mend(repairs, visits, self._connections.forget_stale)

    def ask_names(
        self, questions: Mapping[str, tuple[str, int]], seconds: float
    ) -> dict[str, frozenset[IPv4Address] | None]:
        """See asking.py. Raises KernelError."""
        with self._lock, Visits(self._namespaces, self._host) as visits:
            try:
                return asking.ask(visits, questions, seconds)
            except OSError as error:
                raise KernelError(None, error.errno or 0, error.strerror or str(error)) from error

    def namespace_numbers(self, names: Iterable[str]) -> dict[str, int]:
        """What tells the namespaces of these names from others (inodes); 0 where there is none."""
        return {name: self._namespaces.number(name) for name in names}

    def bind_namespace(self, name: str, source: str) -> None:
        """Bind a living namespace (a path below /proc) under a name that somebody took away. Raises KernelError."""
        with self._lock:
            try:
                self._namespaces.bind(name, source)
            except OSError as error:
                raise KernelError(None, error.errno or 0, error.strerror or str(error)) from error

    def netns_path(self, name: str) -> str:
        """Where the namespace of that name is bound, for setns(2) and a container's configuration."""
        return self._namespaces.path(name)

    def wait_buried(self, timeout: float = 60.0) -> bool:
        """Until links on their way out are deleted (close does not need it); False where `timeout` seconds end."""
        return self._gravedigger.wait(timeout)

    def close(self) -> None:
        """Deletes what waits to be deleted and lets everything else as it is."""
        with self._lock:
            self._gravedigger.close()
            self._connections.close()
            self.alarm.close()
            self.tunnel_alarm.close()
            self._host.close()
            self._mould.close()
            self._nft.close()
            self._namespaces.close()
