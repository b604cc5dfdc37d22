"""The canonical tree to typed, frozen nouns: phase 10, the last one. No decisions here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dari.compose.load import members
from dari.compose.load.errors import Marks
from dari.compose.project import (
    Attachment,
    Content,
    Dependency,
    FileReference,
    Mount,
    Network,
    Port,
    Project,
    Service,
    Volume,
)
from dari.units import SECOND, parse_duration


def bind(
    tree: Mapping[str, Any],
    *,
    directory: str,
    files: tuple[str, ...],
    disabled: Mapping[str, Any],
    variables: Mapping[str, str],
    marks: Marks,
) -> Project:
    """The project of a normalised, consistent tree."""
    name = tree["name"]
    services = {key: _service(name, key, value) for key, value in sorted(tree["services"].items())}
    places = {key: str(mark) for key in services if (mark := marks.find(("services", key)))}
    return Project(
        name=name,
        directory=directory,
        files=files,
        services=services,
        disabled=disabled,
        networks={
            key: Network(key=key, name=value["name"], external=bool(value.get("external")), model=value)
            for key, value in tree["networks"].items()
        },
        volumes={
            key: Volume(key=key, name=value["name"], external=bool(value.get("external")), model=value)
            for key, value in tree.get("volumes", {}).items()
        },
        secrets={key: _content(key, value) for key, value in tree.get("secrets", {}).items()},
        configs={key: _content(key, value) for key, value in tree.get("configs", {}).items()},
        members=members.read(tree, name),
        variables=variables,
        model=tree,
        places=places,
    )


def _content(key: str, value: Mapping[str, Any]) -> Content:
    return Content(
        key=key,
        name=value["name"],
        external=bool(value.get("external")),
        file=value.get("file") or "",
        environment=value.get("environment") or "",
        content=value.get("content"),
    )


def _service(project: str, name: str, model: Mapping[str, Any]) -> Service:
    deploy = model.get("deploy") or {}
    scale = model.get("scale") if model.get("scale") is not None else deploy.get("replicas")
    grace = model.get("stop_grace_period")
    image = model.get("image") or f"{project}-{name}"
    attachments = tuple(_attachment(key, value or {}) for key, value in (model.get("networks") or {}).items())
    return Service(
        name=name,
        image=image,
        has_image=bool(model.get("image")),
        build=model.get("build"),
        container_name=model.get("container_name") or "",
        scale=1 if scale is None else scale,
        environment=model.get("environment") or {},
        labels=model.get("labels") or {},
        depends_on=tuple(
            Dependency(
                service=target,
                condition=value["condition"],
                is_required=value.get("required", True),
                restart=bool(value.get("restart")),
            )
            for target, value in (model.get("depends_on") or {}).items()
        ),
        networks=tuple(sorted(attachments, key=lambda one: (-one.priority, one.network))),
        network_mode=model.get("network_mode") or "",
        ports=tuple(
            Port(
                target=port["target"],
                protocol=port.get("protocol") or "tcp",
                published=port.get("published") or "",
                host_ip=port.get("host_ip") or "",
                mode=port.get("mode") or "ingress",
            )
            for port in model.get("ports") or []
        ),
        volumes=tuple(_mount(value) for value in model.get("volumes") or []),
        volumes_from=tuple(model.get("volumes_from") or []),
        links=tuple(model.get("links") or []),
        external_links=tuple(model.get("external_links") or []),
        secrets=tuple(_reference(value, "/run/secrets/") for value in model.get("secrets") or []),
        configs=tuple(_reference(value, "/") for value in model.get("configs") or []),
        profiles=tuple(model.get("profiles") or []),
        pull_policy=model.get("pull_policy") or "",
        platform=model.get("platform") or "",
        stop_grace_period=parse_duration(grace) / SECOND if grace else None,
        is_attached=model.get("attach") is not False,
        tty=bool(model.get("tty")),
        pre_start=tuple(
            _service(project, name, {**hook, "image": hook.get("image") or image})
            for hook in model.get("pre_start") or []
        ),
        model=model,
    )


def _attachment(network: str, value: Mapping[str, Any]) -> Attachment:
    return Attachment(
        network=network,
        aliases=tuple(value.get("aliases") or ()),
        ipv4_address=value.get("ipv4_address") or "",
        ipv6_address=value.get("ipv6_address") or "",
        link_local_ips=tuple(value.get("link_local_ips") or ()),
        mac_address=value.get("mac_address") or "",
        driver_opts=value.get("driver_opts") or {},
        priority=value.get("priority") or 0,
        gw_priority=value.get("gw_priority") or 0,
        interface_name=value.get("interface_name") or "",
        has_service_name=value.get("use_service_name_alias") is not False,
    )


def _mount(value: Mapping[str, Any]) -> Mount:
    return Mount(
        type=value["type"],
        target=value["target"],
        source=value.get("source") or "",
        read_only=bool(value.get("read_only")),
        bind=value.get("bind") or {},
        volume=value.get("volume") or {},
        tmpfs=value.get("tmpfs") or {},
        image=value.get("image") or {},
    )


def _reference(value: Mapping[str, Any], folder: str) -> FileReference:
    target = value.get("target") or value["source"]
    return FileReference(
        source=value["source"],
        target=target if target.startswith("/") else folder + target,
        uid=value.get("uid") or "",
        gid=value.get("gid") or "",
        mode=value.get("mode") or "",
    )
