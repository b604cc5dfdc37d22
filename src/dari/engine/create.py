"""Making a container: everything is checked and decided here, then written in one transaction. Nothing runs yet.

Must not know: JSON, the kernel. Walk: ARCHITECTURE.md, "docker run". Source: Docker Engine API v1.51,
`ContainerCreate`.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from dari.engine import mounts
from dari.engine.base import Engine, commit
from dari.engine.lookup import find_container, find_network
from dari.engine.merge import command_line, merge_config
from dari.engine.naming import check_name, generate_name
from dari.engine.networks import check_spec
from dari.engine.validate import HostLimits, check_config, check_host
from dari.model.config import Config
from dari.model.container import Container, ContainerConfig, HostConfig, LogConfig, RestartPolicy
from dari.model.errors import Conflict, InvalidArgument, NotFound, PluginMissing
from dari.model.image import Image
from dari.model.network import Endpoint, EndpointSpec, Network, PendingEndpoint, Sandbox
from dari.model.platform import Platform, machine, parse_platform, serves
from dari.reconcile.containers import joined_id
from dari.reconcile.journal import emit
from dari.reconcile.names import split_link
from dari.reconcile.rows import event
from dari.runtime.hostfacts import memory_nodes
from dari.store.base import Txn, TxnConflict
from dari.units import is_global_id, new_id

Place: TypeAlias = Network | str
"""A network, or the name of one that is not there yet."""

# Names under which clients ask for the one runtime there is; Docker's own default among them.
RUNTIMES = ("crun", "runc", "io.containerd.runc.v2")
_TRIES = 16
_MASKED_TEXT = (
    "/proc/asound /proc/acpi /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list "
    "/proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap"
)
_READONLY_TEXT = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks: `name` empty = generated; `endpoints` by network name or id, in the asked order."""

    config: ContainerConfig
    host: HostConfig
    name: str = ""
    endpoints: dict[str, EndpointSpec] = field(default_factory=dict)
    platform: str = ""
    # Before 1.44, mounts below a read-only one of Binds stayed writable.
    binds_recurse_read_only: bool = True


async def create(eng: Engine, request: Request) -> tuple[Container, list[str]]:
    """The container and the warnings it deserves.

    Raises NotFound (the image, which clients answer with a pull, or a volume driver), Conflict (the name is in use),
    InvalidArgument, Forbidden (a network that only holds configuration).
    """
    name = check_name(request.name) if request.name else ""
    if name:
        _check_free(eng, name)
    check_config(request.config)
    image = _resolve_image(eng, request)
    try:
        container, warnings = await _create(eng, request, name, image)
        return container, warnings + _remarks(request, image)
    except PluginMissing:
        raise
    except NotFound as missing:
        raise InvalidArgument(missing.message) from missing


def _remarks(request: Request, image: Image) -> list[str]:
    """What is done otherwise than somebody might have meant it."""
    found = []
    here = Platform(os="linux", architecture=machine())
    if not request.platform and image.architecture and not serves(image.platform, here):
        found.append(
            f"The requested image's platform ({image.platform}) does not match the detected host platform ({here}) "
            "and no specific platform was requested"
        )
    if request.host.volume_driver and any(each.type == "volume" for each in request.host.mounts):
        found.append(
            "the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. "
            "Use '--mount type=volume,volume-driver=...' instead"
        )
    return found


async def _create(eng: Engine, request: Request, name: str, image: Image) -> tuple[Container, list[str]]:
    container_id = new_id()
    config = merge_config(request.config, image.config)
    check_config(config)
    host = _with_defaults(request.host, eng.ctx.config)
    warnings = check_host(request.config, host, HostLimits(os.cpu_count() or 1, memory_nodes()))
    if host.runtime not in (eng.ctx.config.runtime, *RUNTIMES):
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")
    host = _with_joined(eng, host, name)
    # On networks with names of their own, a link may be there before its target is.
    must_exist = host.network_mode == "bridge"
    links = [_checked_link(eng, each, must_exist) for each in host.links]
    specs = _endpoint_specs(eng, config, host, request.endpoints)
    config = _with_hostname(config, host, container_id)
    config = msgspec.structs.replace(config, mac_address="")
    path, args = command_line(config)
    name = name or generate_name(lambda word: eng.ctx.tables.names.get(eng.ctx.local, word) is not None)
    sandbox = _sandbox(host, container_id, specs)
    container = Container(
        id=container_id,
        name=name,
        created=eng.ctx.now(),
        image_id=image.id,
        config=config,
        host=msgspec.structs.replace(host, links=[f"/{target}:/{name}/{alias}" for target, alias in links]),
        sandbox_id=sandbox.id if sandbox is not None else "",
        path=path,
        args=args,
    )
    container = await mounts.prepare(
        eng, container, image, binds_recurse_read_only=request.binds_recurse_read_only
    )
    try:
        container = await _write(eng, container, sandbox, specs)
    except BaseException:
        await mounts.abandon(eng, container)
        raise
    return container, warnings


async def _write(
    eng: Engine, container: Container, sandbox: Sandbox | None, specs: list[tuple[Place, EndpointSpec]]
) -> Container:
    """The new container, with its rows written. Where it joins another's network it follows that where it moves."""
    for _ in range(_TRIES):
        txn = Txn()
        joined = "" if sandbox is not None else _join(eng, txn, container.host)
        if sandbox is None:
            container = msgspec.structs.replace(container, sandbox_id=joined)
        _add_rows(eng, txn, container, sandbox, specs)
        try:
            await commit(eng, txn)
        except TxnConflict as lost:
            _check_free(eng, container.name)
            if joined and lost.key == eng.ctx.tables.sandboxes.key(joined):
                continue
            raise Conflict(
                f"container {container.name} could not be created: {lost.key} changed, try again"
            ) from None
        return container
    raise Conflict(f"the network that container {container.name} joins is being changed, try again")


def _join(eng: Engine, txn: Txn, host: HostConfig) -> str:
    """The sandbox of the container that is joined, which must still be there when `txn` is. Raises NotFound."""
    owner = find_container(eng, joined_id(host.network_mode))
    key = eng.ctx.tables.sandboxes.key(owner.sandbox_id)
    row = eng.ctx.local.get(key)
    if row is None:
        raise NotFound(f"No such container: {owner.id}")
    txn.checks[key] = row.revision
    return owner.sandbox_id


def _add_rows(
    eng: Engine,
    txn: Txn,
    container: Container,
    sandbox: Sandbox | None,
    specs: list[tuple[Place, EndpointSpec]],
) -> None:
    tables = eng.ctx.tables
    tables.containers.insert(txn, container, container.id)
    tables.names.insert(txn, container.id, container.name)
    if sandbox is not None:
        tables.sandboxes.insert(txn, sandbox, sandbox.id)
        for index, (network, spec) in enumerate(specs):
            if isinstance(network, str):
                continue
            endpoint = Endpoint(
                id=new_id(),
                network_id=network.id,
                sandbox_id=sandbox.id,
                container_id=container.id,
                spec=spec,
                index=index,
                node=eng.ctx.node_id if is_global_id(network.id) else "",
            )
            tables.endpoints.insert(txn, endpoint, network.id, endpoint.id)
            # A network that is removed meanwhile takes this request with it.
            row = eng.ctx.shared.get(tables.networks.key(network.id))
            if row is None:
                raise NotFound(f"network {network.name} not found")
            txn.checks[tables.networks.key(network.id)] = row.revision
    emit(eng.ctx, txn, event(container, "create"))


def _check_free(eng: Engine, name: str) -> None:
    owner = eng.ctx.tables.names.get(eng.ctx.local, name)
    if owner is not None:
        raise Conflict(
            f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )


def _resolve_image(eng: Engine, request: Request) -> Image:
    if not request.config.image:
        if not request.config.cmd and not request.config.entrypoint:
            raise InvalidArgument("no command specified")
        raise InvalidArgument("no image specified: Config.Image must name one")
    image = eng.ctx.images.resolve(request.config.image)
    wanted = parse_platform(request.platform) if request.platform else None
    if wanted is not None and image.architecture and not serves(image.platform, wanted):
        raise NotFound(
            f"image with reference {request.config.image} was found but its platform "
            f"({image.platform}) does not match the specified platform ({request.platform})"
        )
    return image


def _with_defaults(host: HostConfig, config: Config) -> HostConfig:
    """What Docker fills in at create, so that `inspect` shows it."""
    mode = host.network_mode if host.network_mode not in ("", "default") else "bridge"
    memory_swap = host.memory_swap
    if host.memory > 0 and memory_swap == 0:
        memory_swap = host.memory * 2
    policy = host.restart_policy
    masked, readonly = host.masked_paths, host.readonly_paths
    if masked is None:
        masked = [] if host.privileged else _MASKED_TEXT.split()
    if readonly is None:
        readonly = [] if host.privileged else _READONLY_TEXT.split()
    pids = host.pids_limit
    return msgspec.structs.replace(
        host,
        network_mode=mode,
        memory_swap=memory_swap,
        restart_policy=policy if policy.name else RestartPolicy(),
        log_config=host.log_config if host.log_config.type else LogConfig(config=host.log_config.config),
        shm_size=host.shm_size or config.default_shm_size,
        ipc_mode=host.ipc_mode or config.default_ipc_mode,
        cgroupns_mode=host.cgroupns_mode
        or config.default_cgroupns_mode
        or ("private" if has_unified_cgroups() else "host"),
        runtime=host.runtime or config.runtime,
        oom_kill_disable=bool(host.oom_kill_disable),
        memory_swappiness=None if host.memory_swappiness == -1 else host.memory_swappiness,
        pids_limit=None if pids is None or pids <= 0 else pids,
        masked_paths=masked,
        readonly_paths=readonly,
    )


def has_unified_cgroups() -> bool:
    return os.path.exists("/sys/fs/cgroup/cgroup.controllers")


def _with_joined(eng: Engine, host: HostConfig, name: str) -> HostConfig:
    """Names in `container:<name>` become ids, which survive a rename. Raises NotFound."""

    def resolved(mode: str) -> str:
        ref = joined_id(mode)
        if ref and ref == name:
            raise InvalidArgument(f"cannot join own namespace: {mode}")
        return f"container:{find_container(eng, ref).id}" if ref else mode

    return msgspec.structs.replace(
        host,
        network_mode=resolved(host.network_mode),
        pid_mode=resolved(host.pid_mode),
        ipc_mode=resolved(host.ipc_mode),
    )


def _checked_link(eng: Engine, link: str, must_exist: bool) -> tuple[str, str]:
    """Name of the target and alias. Raises InvalidArgument, NotFound."""
    target, alias = split_link(link)
    if not target or not alias:
        raise InvalidArgument(f"bad format for links: {link}")
    try:
        found = find_container(eng, target)
        if must_exist and found.host.network_mode == "host":
            raise InvalidArgument(
                "conflicting options: host type networking can't be used with links. "
                "This would result in undefined behavior"
            )
        return found.name, alias
    except NotFound:
        if not must_exist:
            return target, alias
        raise NotFound(f"could not get container for {target}: No such container: {target}") from None


def _endpoint_specs(
    eng: Engine, config: ContainerConfig, host: HostConfig, asked: dict[str, EndpointSpec]
) -> list[tuple[Place, EndpointSpec]]:
    """The networks of a container, that of its network mode first. Raises InvalidArgument, Forbidden.

    As in Docker, who names networks and leaves the mode at the default bridge is on those networks alone.
    """
    mode = host.network_mode
    if joined_id(mode):
        return []
    if config.network_disabled and not asked:
        mode = "none"
    found: dict[str, tuple[Place, EndpointSpec]] = {}
    main = _place(eng, mode)
    for name, spec in asked.items():
        place = _place(eng, "bridge" if name == "default" else name)
        if mode in ("host", "none") and _key(place) != _key(main):
            raise InvalidArgument(
                f"conflicting options: cannot attach both user-defined and non-user-defined network-modes: "
                f"{place if isinstance(place, str) else place.name} and {mode}"
            )
        found[_key(place)] = (place, spec)
    if mode == "bridge" and found and _key(main) not in found:
        if config.mac_address and len(found) > 1:
            raise InvalidArgument(
                "unable to migrate container-wide MAC address to a specific network: HostConfig.NetworkMode must "
                "match the identity of a network in NetworkSettings.Networks"
            )
        main, _ = next(iter(found.values()))
    _, spec = found.pop(_key(main), (main, EndpointSpec()))
    if config.mac_address:
        if spec.mac_address and spec.mac_address != config.mac_address:
            raise InvalidArgument(
                "the container-wide MAC address must match the endpoint-specific MAC address for the main network, "
                "or be left empty"
            )
        spec = msgspec.structs.replace(spec, mac_address=config.mac_address)
    ordered = [(main, spec), *found.values()]
    for place, each in ordered:
        if not isinstance(place, str):
            _check_spec(place, each)
    return ordered


def _place(eng: Engine, ref: str) -> Place:
    """A network, or the word for one that is not there: as in Docker it is looked for again at the start."""
    try:
        return find_network(eng, ref)
    except NotFound:
        return ref


def _key(place: Place) -> str:
    return place if isinstance(place, str) else place.id


def _check_spec(network: Network, spec: EndpointSpec) -> None:
    """Raises InvalidArgument where the network cannot give what is asked of it."""
    try:
        check_spec(network, spec)
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid config for network {network.name}: {error.message}") from None


def _with_hostname(config: ContainerConfig, host: HostConfig, container_id: str) -> ContainerConfig:
    if config.hostname or joined_id(host.network_mode):
        return config
    if host.network_mode == "host" or host.uts_mode == "host":
        return msgspec.structs.replace(config, hostname=socket.gethostname())
    return msgspec.structs.replace(config, hostname=container_id[:12])


def _sandbox(host: HostConfig, container_id: str, specs: list[tuple[Place, EndpointSpec]]) -> Sandbox | None:
    """The container's own sandbox; None where it joins another's."""
    mode = host.network_mode
    if joined_id(mode):
        return None
    return Sandbox(
        id=new_id(),
        container_id=container_id,
        mode="host" if mode == "host" else "none" if mode == "none" else "own",
        sysctls={name: value for name, value in host.sysctls.items() if name.startswith("net.")},
        pending=[
            PendingEndpoint(network=place, spec=spec, index=index)
            for index, (place, spec) in enumerate(specs)
            if isinstance(place, str)
        ],
    )
