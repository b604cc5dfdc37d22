"""The verbs of `dari compose`: where each is done, what it says of itself, which flags it has.

A verb's flags are Docker Compose's; a parser is only built for the verb that is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import ArgumentParser

    Add = Callable[[ArgumentParser], None]


def _flag(parser: ArgumentParser, *names: str, dest: str | None = None) -> None:
    """A switch that is off until given."""
    more: dict[str, Any] = {"dest": dest} if dest else {}
    parser.add_argument(*names, action="store_true", **more)


def _text(parser: ArgumentParser, *names: str, **more: Any) -> None:
    parser.add_argument(*names, **more)


def _many(parser: ArgumentParser, *names: str, dest: str | None = None) -> None:
    more: dict[str, Any] = {"dest": dest} if dest else {}
    parser.add_argument(*names, action="append", default=[], **more)


def _services(parser: ArgumentParser) -> None:
    parser.add_argument("services", nargs="*", metavar="SERVICE")


def _timeout(parser: ArgumentParser) -> None:
    parser.add_argument("-t", "--timeout", type=int)


def _create_flags(parser: ArgumentParser) -> None:
    for name in (
        "--build",
        "--no-build",
        "--force-recreate",
        "--no-recreate",
        "--remove-orphans",
        "--quiet-pull",
    ):
        _flag(parser, name)
    _text(parser, "--pull", choices=("always", "missing", "never", "build", "policy"))
    _many(parser, "--scale")
    _flag(parser, "-y", "--yes")
    _services(parser)


def _up_flags(parser: ArgumentParser) -> None:
    _create_flags(parser)
    _flag(parser, "-d", "--detach")
    _flag(parser, "-V", "--renew-anon-volumes")
    for name in (
        "--always-recreate-deps",
        "--no-deps",
        "--no-start",
        "--wait",
        "--abort-on-container-exit",
        "--abort-on-container-failure",
        "--attach-dependencies",
        "--no-color",
        "--no-log-prefix",
        "--timestamps",
        "--quiet-build",
        "--menu",
        "--plan",
    ):
        _flag(parser, name)
    parser.add_argument("--wait-timeout", type=float)
    _text(parser, "--exit-code-from")
    _many(parser, "--attach")
    _many(parser, "--no-attach")
    _timeout(parser)


def _scale_flags(parser: ArgumentParser) -> None:
    _flag(parser, "--no-deps")
    parser.add_argument("scales", nargs="+", metavar="SERVICE=REPLICAS")


def _down_flags(parser: ArgumentParser) -> None:
    _flag(parser, "-v", "--volumes")
    _flag(parser, "--remove-orphans")
    _text(parser, "--rmi")
    _timeout(parser)
    _services(parser)


def _ps_flags(parser: ArgumentParser) -> None:
    _flag(parser, "-a", "--all")
    _flag(parser, "-q", "--quiet")
    _flag(parser, "--services", dest="show_services")
    _flag(parser, "--no-trunc")
    parser.add_argument("--orphans", action="store_true", default=True)
    _text(parser, "--format")
    _many(parser, "--filter")
    _many(parser, "--status")
    _services(parser)


def _logs_flags(parser: ArgumentParser) -> None:
    _flag(parser, "-f", "--follow")
    _flag(parser, "-t", "--timestamps")
    _flag(parser, "--no-color")
    _flag(parser, "--no-log-prefix")
    _text(parser, "-n", "--tail", default="all")
    _text(parser, "--since")
    _text(parser, "--until")
    parser.add_argument("--index", type=int)
    _services(parser)


def _config_flags(parser: ArgumentParser) -> None:
    _text(parser, "--format", choices=("yaml", "json"))
    _text(parser, "--hash")
    _text(parser, "-o", "--output")
    _flag(parser, "-q", "--quiet")
    _flag(parser, "--services", dest="show_services")
    for name in (
        "--volumes",
        "--networks",
        "--images",
        "--profiles",
        "--variables",
        "--environment",
        "--no-interpolate",
        "--no-path-resolution",
        "--no-consistency",
        "--no-env-resolution",
        "--resolve-image-digests",
        "--lock-image-digests",
    ):
        _flag(parser, name)
    _services(parser)


def _stop_flags(parser: ArgumentParser) -> None:
    _timeout(parser)
    _services(parser)


def _start_flags(parser: ArgumentParser) -> None:
    _flag(parser, "--wait")
    parser.add_argument("--wait-timeout", type=float)
    _services(parser)


def _restart_flags(parser: ArgumentParser) -> None:
    _timeout(parser)
    _flag(parser, "--no-deps")
    _services(parser)


def _kill_flags(parser: ArgumentParser) -> None:
    _text(parser, "-s", "--signal", default="SIGKILL")
    _flag(parser, "--remove-orphans")
    _services(parser)


def _rm_flags(parser: ArgumentParser) -> None:
    _flag(parser, "-f", "--force")
    _flag(parser, "-s", "--stop")
    _flag(parser, "-v", "--volumes")
    _services(parser)


def _wait_flags(parser: ArgumentParser) -> None:
    _flag(parser, "--down-project")
    parser.add_argument("services", nargs="+", metavar="SERVICE")


def _pull_flags(parser: ArgumentParser) -> None:
    for name in ("--ignore-buildable", "--ignore-pull-failures", "--include-deps"):
        _flag(parser, name)
    _flag(parser, "-q", "--quiet")
    _text(parser, "--policy", choices=("missing", "always"))
    _services(parser)


def _push_flags(parser: ArgumentParser) -> None:
    _flag(parser, "--include-deps")
    _flag(parser, "--ignore-push-failures")
    _flag(parser, "-q", "--quiet")
    _services(parser)


def _build_flags(parser: ArgumentParser) -> None:
    for name in ("--no-cache", "--pull", "--push", "--print", "--with-dependencies"):
        _flag(parser, name)
    _flag(parser, "-q", "--quiet")
    _many(parser, "--build-arg")
    for name in ("--ssh", "-m", "--memory", "--builder"):
        _text(parser, name)
    _services(parser)


def _images_flags(parser: ArgumentParser) -> None:
    _flag(parser, "-q", "--quiet")
    _text(parser, "--format")
    _services(parser)


def _terminal_flags(parser: ArgumentParser) -> None:
    _flag(parser, "-d", "--detach")
    _flag(parser, "-T", "--no-TTY", "--no-tty", dest="no_tty")
    _flag(parser, "-t", "--tty")
    parser.add_argument("-i", "--interactive", action="store_true", default=True)
    _many(parser, "-e", "--env")
    _text(parser, "-u", "--user")
    _text(parser, "-w", "--workdir")


def _exec_flags(parser: ArgumentParser) -> None:
    import argparse

    _terminal_flags(parser)
    _flag(parser, "--privileged")
    parser.add_argument("--index", type=int)
    parser.add_argument("service", metavar="SERVICE")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")


def _run_flags(parser: ArgumentParser) -> None:
    import argparse

    _terminal_flags(parser)
    for name in (
        "--build",
        "--no-deps",
        "--use-aliases",
        "--quiet-pull",
        "--quiet-build",
        "--remove-orphans",
        "--rm",
    ):
        _flag(parser, name)
    _flag(parser, "-q", "--quiet")
    _flag(parser, "-P", "--service-ports")
    for name in ("--name", "--entrypoint", "--pull"):
        _text(parser, name)
    for names in (
        ("-l", "--label"),
        ("-p", "--publish"),
        ("-v", "--volume"),
        ("--cap-add",),
        ("--cap-drop",),
    ):
        _many(parser, *names)
    parser.add_argument("service", metavar="SERVICE")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")


def _port_flags(parser: ArgumentParser) -> None:
    _text(parser, "--protocol", default="tcp")
    parser.add_argument("--index", type=int)
    parser.add_argument("service", metavar="SERVICE")
    parser.add_argument("private_port", metavar="PRIVATE_PORT")


def _ls_flags(parser: ArgumentParser) -> None:
    _flag(parser, "-a", "--all")
    _flag(parser, "-q", "--quiet")
    _many(parser, "--filter")
    _text(parser, "--format")


def _events_flags(parser: ArgumentParser) -> None:
    _flag(parser, "--json")
    _text(parser, "--since")
    _text(parser, "--until")
    _services(parser)


def _version_flags(parser: ArgumentParser) -> None:
    _flag(parser, "--short")
    _text(parser, "-f", "--format")


def _cp_flags(parser: ArgumentParser) -> None:
    _flag(parser, "-a", "--archive")
    _flag(parser, "-L", "--follow-link")
    _flag(parser, "--all")
    parser.add_argument("--index", type=int)
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("target", metavar="DEST")


VERBS: dict[str, tuple[str, str, Add]] = {
    "build": ("images:build", "Build images", _build_flags),
    "cp": ("cp:cp", "Copy files between a service's container and this host", _cp_flags),
    "events": ("inspect:events", "Show what happens to the containers", _events_flags),
    "exec": ("exec:exec_", "Run a command in a running container", _exec_flags),
    "images": ("images:images", "List images of the containers", _images_flags),
    "ls": ("inspect:ls", "List projects", _ls_flags),
    "port": ("inspect:port", "Show the public address of a port", _port_flags),
    "pull": ("images:pull", "Pull images", _pull_flags),
    "push": ("images:push", "Push images", _push_flags),
    "run": ("run:run", "Run a one-off command in a service's new container", _run_flags),
    "top": ("inspect:top", "Show the processes of the containers", _services),
    "version": ("inspect:version", "Show the version", _version_flags),
    "volumes": ("inspect:volumes", "List volumes", _images_flags),
    "config": ("config:config", "Show the project as Compose understands it", _config_flags),
    "convert": ("config:config", "Show the project as Compose understands it", _config_flags),
    "create": ("up:create", "Create containers without starting them", _create_flags),
    "down": ("down:down", "Stop and remove containers and networks", _down_flags),
    "kill": ("lifecycle:kill", "Force containers to stop", _kill_flags),
    "logs": ("logs:logs", "Show output of containers", _logs_flags),
    "pause": ("lifecycle:pause", "Pause services", _services),
    "ps": ("ps:ps", "List containers", _ps_flags),
    "restart": ("lifecycle:restart", "Restart containers", _restart_flags),
    "rm": ("lifecycle:rm", "Remove stopped containers", _rm_flags),
    "scale": ("up:scale", "Change the number of containers", _scale_flags),
    "start": ("lifecycle:start", "Start containers that exist", _start_flags),
    "stop": ("lifecycle:stop", "Stop containers", _stop_flags),
    "unpause": ("lifecycle:unpause", "Unpause services", _services),
    "up": ("up:up", "Create and start containers", _up_flags),
    "wait": ("lifecycle:wait", "Wait until a container ends", _wait_flags),
}
