"""What a container runs: the request's config laid over its image's, by Docker's rules.

Pure. Source: Docker Engine API v1.51, `ContainerCreate`, and the reference of the Dockerfile's instructions. Must not
know: where images lie.
"""

from __future__ import annotations

import posixpath

import msgspec

from dari.model.container import ContainerConfig, HealthConfig
from dari.model.errors import InvalidArgument

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def merge_config(asked: ContainerConfig, image: ContainerConfig) -> ContainerConfig:
    """`asked` with everything it leaves open taken from `image`.

    The image's command counts only where neither entrypoint nor command is asked; an entrypoint `[""]` clears the
    image's. Raises InvalidArgument where no command is left.
    """
    entrypoint, cmd = asked.entrypoint, asked.cmd
    if not entrypoint:
        cmd = cmd or image.cmd
        entrypoint = image.entrypoint if entrypoint is None else entrypoint
    if entrypoint == [""]:
        entrypoint = None
    if not entrypoint and not cmd:
        raise InvalidArgument("no command specified")
    return msgspec.structs.replace(
        asked,
        user=asked.user or image.user,
        exposed_ports=image.exposed_ports | asked.exposed_ports,
        env=merge_env(asked.env, image.env),
        labels=image.labels | asked.labels,
        entrypoint=entrypoint,
        cmd=cmd,
        healthcheck=merge_health(asked.healthcheck, image.healthcheck),
        working_dir=_cleaned(asked.working_dir or image.working_dir),
        volumes=image.volumes | asked.volumes,
        stop_signal=asked.stop_signal or image.stop_signal,
        on_build=None if asked.on_build is None else asked.on_build,
        shell=asked.shell or image.shell,
    )


def _cleaned(folder: str) -> str:
    """Without slashes and dots that lead nowhere; empty stays empty."""
    return folder and "/" + posixpath.normpath(folder).lstrip("/")


def merge_env(asked: list[str], image: list[str]) -> list[str]:
    """The asked variables, then those of the image that nobody asked otherwise."""
    names = {entry.partition("=")[0] for entry in asked}
    return [*asked, *(entry for entry in image if entry.partition("=")[0] not in names)]


def merge_health(asked: HealthConfig | None, image: HealthConfig | None) -> HealthConfig | None:
    if asked is None or image is None:
        return asked or image
    return HealthConfig(
        test=asked.test or image.test,
        interval=asked.interval or image.interval,
        timeout=asked.timeout or image.timeout,
        retries=asked.retries or image.retries,
        start_period=asked.start_period or image.start_period,
        start_interval=asked.start_interval or image.start_interval,
    )


def command_line(config: ContainerConfig) -> tuple[str, list[str]]:
    """Path and arguments as `inspect` shows them."""
    words = [*(config.entrypoint or []), *(config.cmd or [])]
    return words[0], words[1:]


def process_env(config: ContainerConfig, hostname: str) -> list[str]:
    """The environment of the container's process: Docker's own variables first, the config's win."""
    base = [DEFAULT_PATH, f"HOSTNAME={hostname}"]
    if config.tty:
        base.append("TERM=xterm")
    values: dict[str, str] = {}
    for entry in [*base, *config.env]:
        name, has_value, value = entry.partition("=")
        # A bare name removes a variable (`docker run -e NAME` of an unset NAME sends it so).
        if has_value:
            values[name] = value
        else:
            values.pop(name, None)
    return [f"{name}={value}" for name, value in values.items()]
