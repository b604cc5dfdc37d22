"""What `up` and `create` would do: wanted project and observed engine to a graph of operations.

Unchanged containers get no operation. A changed one is made under a temporary name first, so that a bad
configuration leaves the old one running; then stop, remove, rename, start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dari.compose import hash as digest
from dari.compose import labels
from dari.compose.convert import container_body, endpoint, network_body, volume_body
from dari.compose.naming import container_name, shared_service
from dari.compose.observed import Observed, ObservedContainer, ObservedNetwork
from dari.compose.plan.content import content_files
from dari.compose.plan.divergence import anonymous_volumes, divergence
from dari.compose.plan.inits import add_inits
from dari.compose.plan.members import add_registrations
from dari.compose.plan.ops import (
    Builder,
    Plan,
    PlanError,
    add_hooks,
    add_provider,
    by_dependency,
    stop_query,
)
from dari.compose.plan.options import UpOptions
from dari.compose.plan.sharing import check_shares, restarted_with
from dari.compose.project import Project, Service


def selected_services(project: Project, names: Iterable[str], no_deps: bool = False) -> list[str]:
    """The named services (all, when none is) and what they depend on. Raises PlanError for an unknown one."""
    asked = list(names) or list(project.services)
    found: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in project.services:
            raise PlanError(f"no such service: {name}")
        if name in found:
            return
        found[name] = None
        if not no_deps:
            for dependency in project.services[name].depends_on:
                if dependency.service in project.services:
                    visit(dependency.service)

    for name in asked:
        visit(name)
    return list(found)


def plan_up(project: Project, observed: Observed, options: UpOptions) -> Plan:
    """The plan of `up` (or `create` with `no_start`). Raises PlanError."""
    return _Up(project, observed, options).run()


class _Up:
    def __init__(self, project: Project, observed: Observed, options: UpOptions) -> None:
        self.project = project
        self.observed = observed
        self.options = options
        self.build = Builder()
        self.selected = selected_services(project, options.services, options.no_deps)
        for name in options.scale:
            if name not in project.services:
                raise PlanError(f"no such service: {name}")
        self.counts = {name: self._wanted(project.services[name]) for name in project.services}
        self.network_ops: dict[str, int] = {}
        self.volume_ops: dict[str, int] = {}
        self.removed: dict[str, int] = {}
        self.rebuilt: set[str] = set()
        self.exists: dict[str, list[int]] = {}
        self.ready: dict[str, list[int]] = {}
        self.waits: dict[tuple[str, str], int] = {}
        self.recreated: set[str] = set()
        # Steps that stop what restarts with others, by container.
        self.halted: dict[str, int] = {}
        # Services whose `pre_start` steps are due, and what their starts wait for.
        self.inits_due: set[str] = set()
        self.inits: dict[str, list[int]] = {}

    def _wanted(self, service: Service) -> int:
        count = self.options.scale.get(service.name, service.scale)
        if count > 1 and service.container_name:
            raise PlanError(
                f'The "{service.name}" service is using the custom container name "{service.container_name}". '
                "Docker requires each container to have a unique name. Remove the custom name to scale the service"
            )
        return count

    def run(self) -> Plan:
        needs = {
            name: [one.service for one in service.depends_on]
            for name, service in self.project.services.items()
        }
        self._networks()
        self._volumes()
        for name in by_dependency(self.selected, needs):
            check_shares(project=self.project, observed=self.observed, selected=self.selected, name=name)
            self._service(self.project.services[name])
        self._orphans()
        if not self.options.services:
            add_registrations(self.build, self.project.members)
        return self.build.plan()

    # networks and volumes

    def _networks(self) -> None:
        used = {one.network for service in self._used() for one in service.networks}
        if self.options.all_resources:
            used |= set(self.project.networks)
        found = {network.name: network for network in self.observed.networks}
        for key in sorted(used):
            network = self.project.networks[key]
            if network.external:
                continue
            existing = found.get(network.name)
            if existing is None:
                self._create_network(key, "missing", ())
            elif existing.config_hash and existing.config_hash != digest.network_hash(network):
                self._rebuild_network(key, existing)
            else:
                self.build.unchanged.append(f"network {key}")

    def _used(self) -> Iterable[Service]:
        """The services that take part, and the steps before them."""
        for name in self.selected:
            yield self.project.services[name]
            yield from self.project.services[name].pre_start

    def _create_network(self, key: str, cause: str, needs: Iterable[int]) -> None:
        network = self.project.networks[key]
        self.network_ops[key] = self.build.add(
            f"network {key}",
            "create",
            cause,
            needs,
            title=f"Network {network.name}",
            path="/networks/create",
            body=network_body(self.project, network),
        )

    def _rebuild_network(self, key: str, existing: ObservedNetwork) -> None:
        name, cause = existing.name, "its configuration changed"
        self.rebuilt.add(name)
        before, after = [], []
        for container in self.observed.containers:
            if name not in container.networks:
                continue
            if container.service in self.selected and not container.is_oneoff:
                before.append(self._remove(container, f"network {key} changed"))
                self.removed[container.id] = before[-1]
            else:
                before.append(
                    self.build.add(
                        container.name,
                        f"disconnect from {key}",
                        cause,
                        word="disconnect",
                        title=f"Container {container.name}",
                        path=f"/networks/{existing.id}/disconnect",
                        body={"Container": container.id, "Force": True},
                    )
                )
                after.append(container)
        gone = self.build.add(
            f"network {key}",
            "remove",
            cause,
            before,
            title=f"Network {name}",
            method="DELETE",
            path=f"/networks/{existing.id}",
        )
        self._create_network(key, cause, [gone])
        for container in after:
            self._connect(key, container, [self.network_ops[key]])

    def _connect(self, key: str, container: ObservedContainer, needs: Iterable[int]) -> None:
        service = self.project.services.get(container.service)
        attachment = next((one for one in service.networks if one.network == key), None) if service else None
        config = (
            endpoint(
                self.project,
                service,
                attachment,
                container.number,
                api=self.options.api,
                oneoff="",
                counts=self.counts,
            )
            if service and attachment
            else {}
        )
        self.build.add(
            container.name,
            f"connect to {key}",
            "the network is new",
            needs,
            word="connect",
            title=f"Container {container.name}",
            path=f"/networks/{self.project.networks[key].name}/connect",
            body={"Container": container.id, "EndpointConfig": config},
        )

    def _volumes(self) -> None:
        used = {
            mount.source
            for service in self._used()
            for mount in service.volumes
            if mount.type == "volume" and mount.source
        }
        if self.options.all_resources:
            used |= set(self.project.volumes)
        found = {volume.name for volume in self.observed.volumes}
        for key in sorted(used):
            volume = self.project.volumes[key]
            if volume.external:
                continue
            before: list[int] = []
            if volume.name in found and volume.name in self.options.new_volumes:
                before = [self._remove_volume(key, volume.name)]
            elif volume.name in found:
                self.build.unchanged.append(f"volume {key}")
                continue
            self.volume_ops[key] = self.build.add(
                f"volume {key}",
                "create",
                "its configuration changed" if before else "missing",
                before,
                title=f"Volume {volume.name}",
                path="/volumes/create",
                body=volume_body(self.project, volume),
            )

    def _remove_volume(self, key: str, name: str) -> int:
        """Takes a volume away, and the containers that use it."""
        before = []
        for container in self.observed.containers:
            if all(mount.get("Name") != name for mount in container.mounts):
                continue
            if container.id not in self.removed:
                self.removed[container.id] = self._remove(container, f"volume {key} changed")
            before.append(self.removed[container.id])
        return self.build.add(
            f"volume {key}",
            "remove",
            "its configuration changed",
            before,
            title=f"Volume {name}",
            method="DELETE",
            path=f"/volumes/{name}",
        )

    # services

    def _service(self, service: Service) -> None:
        name, wanted = service.name, self.counts[service.name]
        if service.model.get("provider"):
            self.exists.setdefault(name, [])
            self.ready[name] = []
            if not self.options.no_start:
                needs = self._start_needs(service)
                self.ready[name] = [
                    add_provider(self.build, self.project.name, name, service.model, "up", needs)
                ]
            return
        existing = [one for one in self.observed.of_service(name) if one.state != "removing"]
        self.exists.setdefault(name, [])
        self.ready.setdefault(name, [])
        kept, excess = existing[:wanted], existing[wanted:]
        for container in excess:
            self._remove(container, f"more than {wanted} of {name}")
        for container in kept:
            self._existing(service, container)
        taken = {one.number for one in kept}
        number = 0
        if not kept:
            self.inits_due.add(name)
        for _ in range(wanted - len(kept)):
            number = next(one for one in range(number + 1, number + 2 + len(taken)) if one not in taken)
            self._new(service, number)

    def _existing(self, service: Service, container: ObservedContainer) -> None:
        label = f"{service.name}:{container.number}"
        if container.id in self.removed:
            self.recreated.add(service.name)
            self._new(service, container.number, container, "a network or volume of it changed")
            return
        reason = (
            ""
            if self.options.no_recreate
            else divergence(
                self.project, service, container, self.observed, self.options, self.recreated, self.rebuilt
            )
        )
        if reason:
            self._recreate(service, container, reason)
        elif container.is_running or self.options.no_start:
            restarted = [
                one.service for one in service.depends_on if one.restart and one.service in self.recreated
            ]
            if restarted and container.id in self.halted:
                self._start(
                    service,
                    label,
                    container.name,
                    container.id,
                    f"{', '.join(restarted)} recreated",
                    [self.halted[container.id]],
                )
            elif restarted and container.is_running and not self.options.no_start:
                again = self.build.add(
                    label,
                    "restart",
                    f"{', '.join(restarted)} recreated",
                    self._pre_stop(container, label, self._start_needs(service)),
                    title=f"Container {container.name}",
                    path=f"/containers/{container.id}/restart",
                    query=stop_query(self.options.timeout),
                )
                self.ready[service.name] += self._post_start(
                    service, label, container.id, container.name, again
                )
            else:
                self.build.unchanged.append(label)
                self.build.kept.append(
                    (f"Container {container.name}", "Running" if container.is_running else "Created")
                )
        else:
            if container.state == "created":
                self.inits_due.add(service.name)
            self._start(service, label, container.name, container.id, f"is {container.state}", ())

    def _recreate(self, service: Service, container: ObservedContainer, reason: str) -> None:
        label = f"{service.name}:{container.number}"
        number = container.number or 1
        final = container_name(self.project, service, number)
        temporary = f"{container.id[:12]}_{final}"
        keeps_volumes = not self.options.renew_anon_volumes
        inherited = anonymous_volumes(service, container, self.observed) if keeps_volumes else {}
        keeps = len(inherited)
        cause = reason + (f", keeps {keeps} anonymous volume{'s' if keeps > 1 else ''}" if keeps else "")
        self.recreated.add(service.name)
        before = digest.unpack_digests(container.labels.get(labels.KEYS, ""))
        after = digest.key_digests(self.project, service)
        if self.options.force_recreate or before.get("pre_start") != after.get("pre_start"):
            self.inits_due.add(service.name)
        title = f"Container {final}"
        created = self._create(
            service, number, temporary, label, "create as tmp", cause, inherited, container, ()
        )
        # People see one step: it begins with the first call and is done with the last.
        self.build.retitle(created, "recreate", title)
        is_halted = container.id in self.halted
        halts = self._halt_dependents(service)
        stopped = self._stop(container, label, "stop old", "", [created, *halts])
        if stopped is not None and not is_halted:
            self.build.retitle(stopped, "hidden", title)
        gone = self.build.add(
            label,
            "remove old",
            "",
            [created] if stopped is None else [stopped, created] if is_halted else [stopped],
            word="hidden",
            title=title,
            method="DELETE",
            path=f"/containers/{container.id}",
            query={} if stopped else {"force": True},
        )
        renamed = self.build.add(
            label,
            "rename",
            "",
            [gone],
            word="recreated",
            title=title,
            path=f"/containers/{temporary}/rename",
            query={"name": final},
        )
        self._finish(service, label, final, [renamed])

    def _halt_dependents(self, service: Service) -> list[int]:
        """Stops what is to restart with the service, before that goes; it is started again when its turn comes."""
        found: list[int] = []
        if self.options.no_start:
            return found
        for name in restarted_with(self.project, self.selected, service.name):
            for container in self.observed.of_service(name):
                if container.id in self.halted or container.id in self.removed:
                    continue
                label, cause = f"{name}:{container.number}", f"{service.name} is recreated"
                stopped = self._stop(container, label, "stop", cause, ())
                if stopped is not None:
                    self.halted[container.id] = stopped
                    found.append(stopped)
        return found

    def _new(
        self,
        service: Service,
        number: int,
        old: ObservedContainer | None = None,
        cause: str = "missing",
    ) -> None:
        name = container_name(self.project, service, number)
        label = f"{service.name}:{number}"
        inherited = (
            anonymous_volumes(service, old, self.observed)
            if old and not self.options.renew_anon_volumes
            else {}
        )
        needs = [self.removed[old.id]] if old else []
        created = self._create(service, number, name, label, "create", cause, inherited, None, needs)
        self._finish(service, label, name, [created])

    def _create(
        self,
        service: Service,
        number: int,
        name: str,
        label: str,
        action: str,
        cause: str,
        inherited: Mapping[str, str],
        replaces: ObservedContainer | None,
        needs: Iterable[int],
    ) -> int:
        before = list(needs)
        before += [
            self.network_ops[one.network] for one in service.networks if one.network in self.network_ops
        ]
        before += [
            self.volume_ops[mount.source] for mount in service.volumes if mount.source in self.volume_ops
        ]
        for key in ("network_mode", "ipc", "pid"):
            before += self.exists.get(shared_service(service.model.get(key) or "") or "", [])
        for entry in service.volumes_from:
            before += self.exists.get(entry.split(":")[0], [])
        if service.links and not service.networks:
            for entry in service.links:
                before += self.exists.get(entry.split(":")[0], [])
        provided = [
            one.service
            for one in service.depends_on
            if one.service in self.selected and self.project.services[one.service].model.get("provider")
        ]
        for one in provided:
            before += self.ready.get(one, [])
        body = container_body(
            self.project,
            service,
            number,
            image_id=self.options.image_ids.get(service.image, ""),
            inherited=inherited,
            api=self.options.api,
            counts=self.counts,
            extra_labels={labels.REPLACE: replaces.name} if replaces else None,
        )
        query = {"name": name}
        if service.platform:
            query["platform"] = service.platform
        return self.build.add(
            label,
            action,
            cause,
            before,
            word="create",
            title=f"Container {name}",
            path="/containers/create",
            query=query,
            body=body,
            provided=tuple(provided),
        )

    def _finish(self, service: Service, label: str, name: str, needs: list[int]) -> None:
        """What a new container still needs before it runs: more networks, files, its start."""
        self.exists[service.name] += needs
        number = int(label.rpartition(":")[2])
        if self.options.api < (1, 44) and not service.network_mode:
            for one in service.networks[1:]:
                network = self.project.networks[one.network]
                config = endpoint(
                    self.project,
                    service,
                    one,
                    number,
                    api=self.options.api,
                    oneoff="",
                    counts=self.counts,
                )
                connected = self.build.add(
                    label,
                    f"connect to {one.network}",
                    "",
                    needs,
                    word="connect",
                    title=f"Container {name}",
                    path=f"/networks/{network.name}/connect",
                    body={"Container": name, "EndpointConfig": config},
                )
                needs = [connected]
        files = content_files(self.project, service)
        if files:
            needs = [
                self.build.add(
                    label,
                    f"put {len(files)} file{'s' if len(files) > 1 else ''}",
                    "",
                    needs,
                    word="put",
                    title=f"Container {name}",
                    kind="put",
                    path=f"/containers/{name}/archive",
                    body=files,
                )
            ]
        if not self.options.no_start:
            self._start(service, label, name, name, "", needs)

    def _start(
        self, service: Service, label: str, name: str, ref: str, cause: str, needs: Iterable[int]
    ) -> None:
        needs = [*needs, *self._start_needs(service)]
        started = self.build.add(
            label,
            "start",
            cause,
            self._pre_start(service, ref, needs),
            title=f"Container {name}",
            path=f"/containers/{ref}/start",
        )
        self.ready[service.name] += self._post_start(service, label, ref, name, started)

    def _pre_start(self, service: Service, ref: str, needs: list[int]) -> list[int]:
        """The steps before the service's first start, if they are due; what its starts wait for."""
        if service.name not in self.inits_due or not service.pre_start:
            return needs
        if service.name not in self.inits:
            before = add_inits(
                self.build,
                self.project,
                service,
                ref,
                needs,
                image_ids=self.options.image_ids,
                api=self.options.api,
            )
            self.inits[service.name] = before
        return [*needs, *self.inits[service.name]]

    def _post_start(self, service: Service, label: str, ref: str, name: str, started: int) -> list[int]:
        hooks = service.model.get("post_start") or ()
        return add_hooks(self.build, label, service.name, ref, name, "post_start", hooks, [started])

    def _pre_stop(self, container: ObservedContainer, label: str, needs: Iterable[int]) -> list[int]:
        service = self.project.services.get(container.service)
        hooks = (service.model.get("pre_stop") if service else None) or ()
        return add_hooks(
            self.build, label, container.service, container.id, container.name, "pre_stop", hooks, needs
        )

    def _start_needs(self, service: Service) -> list[int]:
        needs: list[int] = []
        for dependency in service.depends_on:
            target = dependency.service
            if target not in self.selected or self.counts.get(target, 0) == 0:
                continue
            if dependency.condition == "service_started":
                needs += self.ready.get(target, [])
                continue
            key = (target, dependency.condition)
            if key not in self.waits:
                names = tuple(
                    container_name(self.project, self.project.services[target], number)
                    for number in self._numbers(target)
                )
                what = "healthy" if dependency.condition == "service_healthy" else "completed"
                self.waits[key] = self.build.add(
                    target,
                    f"wait until {what}",
                    f"{service.name} asks for it",
                    self.ready.get(target, []),
                    word="wait",
                    title=f"Container {names[0]}",
                    kind="wait",
                    containers=names,
                    condition=dependency.condition,
                    is_optional=not dependency.is_required,
                )
            needs.append(self.waits[key])
        return needs

    def _numbers(self, name: str) -> list[int]:
        wanted = self.counts[name]
        kept = [one.number for one in self.observed.of_service(name)][:wanted]
        number = 0
        while len(kept) < wanted:
            number += 1
            if number not in kept:
                kept.append(number)
        return sorted(kept)

    # taking away

    def _stop(
        self, container: ObservedContainer, label: str, action: str, cause: str, needs: Iterable[int]
    ) -> int | None:
        if container.id in self.halted:
            return self.halted[container.id]
        if not container.is_running:
            return None
        return self.build.add(
            label,
            action,
            cause,
            self._pre_stop(container, label, needs),
            word="stop",
            title=f"Container {container.name}",
            path=f"/containers/{container.id}/stop",
            query=stop_query(self.options.timeout),
        )

    def _remove(self, container: ObservedContainer, cause: str) -> int:
        label = f"{container.service}:{container.number}"
        stopped = self._stop(container, label, "stop", cause, ())
        return self.build.add(
            label,
            "remove",
            cause,
            [stopped] if stopped else (),
            title=f"Container {container.name}",
            method="DELETE",
            path=f"/containers/{container.id}",
        )

    def _orphans(self) -> None:
        known = {*self.project.services, *self.project.disabled}
        orphans = [
            one
            for one in self.observed.containers
            if (one.state in ("exited", "dead") if one.is_oneoff else one.service not in known)
            and not one.labels.get(labels.SLUG, "").startswith("pre_start-")
        ]
        if not orphans or self.options.ignore_orphans:
            return
        if self.options.remove_orphans:
            for container in orphans:
                self._remove(container, "orphan")
            return
        names = " ".join(one.name for one in orphans)
        self.build.warnings.append(
            f"Found orphan containers ([{names}]) for this project. If you removed or renamed this service in your "
            "compose file, you can run this command with the --remove-orphans flag to clean it up."
        )
