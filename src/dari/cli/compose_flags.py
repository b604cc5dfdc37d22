"""The verbs of `dari compose`: where each is done, what it says of itself, which flags it has.

A verb's flags are Docker Compose's; the table of a verb is only made when it is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from dari.cli.flags import Command, Flag, Options

Flags = Callable[[], tuple[Flag, ...]]


class Verb(NamedTuple):
    """`target`: module and function in `dari.compose.verbs` (module `cli`: in `compose_more`).

    `arguments`: names of what follows the flags; one that ends in `*` takes any number, in `+` at least one. With
    `is_command` flags end at the first argument.
    """

    target: str
    summary: str
    flags: Flags = lambda: ()
    arguments: str = "services*"
    is_command: bool = False


def _bool(name: str, help: str, short: str = "", default: int | None = None) -> Flag:
    return Flag(name, "bool", help, short, default)


def _text(name: str, help: str, short: str = "", default: str | None = None) -> Flag:
    return Flag(name, "text", help, short, default)


def _list(name: str, help: str, short: str = "") -> Flag:
    return Flag(name, "list", help, short)


def _int(name: str, help: str, short: str = "", default: int | None = None) -> Flag:
    return Flag(name, "int", help, short, default)


_INDEX = _int("index", "Index of the container if the service has several")
_TIMEOUT = _int("timeout", "Seconds to wait before a container is killed", "t")
_FORMAT = _text("format", "Format output: 'table', 'table TEMPLATE', 'json', or a Go template")
_BUILD = _bool("build", "Build images before starting containers")
_PULL = _text(
    "pull",
    "Pull image before running (always|missing|never|build|if_not_present|policy)",
    default="policy",
)
_QUIET = _bool("quiet", "Don't print anything to STDOUT", "q")
_QUIET_PULL = _bool("quiet-pull", "Pull without printing progress information")
_QUIET_BUILD = _bool("quiet-build", "Suppress the build output")
_NO_DEPS = _bool("no-deps", "Don't start linked services")
_NO_COLOR = _bool("no-color", "Produce monochrome output")
_NO_LOG_PREFIX = _bool("no-log-prefix", "Don't print prefix in logs")
_WAIT_TIMEOUT = _int("wait-timeout", "Most seconds to wait for the project to be running|healthy")
_ORPHANS = _bool("remove-orphans", "Remove containers for services not defined in the Compose file")
_YES = _bool("yes", 'Assume "yes" as answer to all prompts and run non-interactively', "y")


def _create_flags() -> tuple[Flag, ...]:
    return (
        _BUILD,
        _bool("no-build", "Don't build an image, even if it's missing"),
        _bool("force-recreate", "Recreate containers even if nothing of theirs has changed"),
        _bool("no-recreate", "If containers already exist, don't recreate them"),
        _ORPHANS,
        _QUIET_PULL,
        _PULL,
        _list("scale", "Scale SERVICE to NUM instances (SERVICE=NUM)"),
        _YES,
    )


def _up_flags() -> tuple[Flag, ...]:
    return (
        *_create_flags(),
        _bool("detach", "Run containers in the background", "d"),
        _bool("renew-anon-volumes", "Recreate anonymous volumes instead of keeping their data", "V"),
        _bool("always-recreate-deps", "Recreate dependent containers"),
        _NO_DEPS,
        _bool("no-start", "Don't start the services after creating them"),
        _bool("wait", "Wait for services to be running|healthy; implies detached mode"),
        _WAIT_TIMEOUT,
        _bool("abort-on-container-exit", "Stop all containers if any container was stopped"),
        _bool("abort-on-container-failure", "Stop all containers if any container exited with failure"),
        _text("exit-code-from", "Return the exit code of this service's container; implies abort on exit"),
        _bool("attach-dependencies", "Attach to log output of dependent services too"),
        _list("attach", "Restrict attaching to the named services"),
        _list("no-attach", "Do not attach (stream logs) to the named services"),
        _NO_COLOR,
        _NO_LOG_PREFIX,
        _bool("timestamps", "Show timestamps"),
        _QUIET_BUILD,
        _bool("menu", "Accepted; there is no menu"),
        _bool(
            "plan", "Print what would be done and why, do nothing (exit status 2: there is something to do)"
        ),
        _bool("watch", "Watch files and rebuild or refresh containers when they change", "w"),
        _TIMEOUT,
    )


def _terminal_flags() -> tuple[Flag, ...]:
    return (
        _bool("detach", "Run in the background", "d"),
        _bool("no-TTY", "Disable pseudo-TTY allocation", "T"),
        _bool("tty", "Allocate a pseudo-TTY", "t"),
        _bool("interactive", "Keep STDIN open even if not attached", "i", 1),
        _list("env", "Set environment variables", "e"),
        _text("user", "Run as this user name or uid", "u"),
        _text("workdir", "Working directory inside the container", "w"),
    )


def _run_flags() -> tuple[Flag, ...]:
    return (
        *_terminal_flags(),
        _BUILD,
        _NO_DEPS,
        _bool("use-aliases", "Use the service's network aliases in the networks of the container"),
        _QUIET_PULL,
        _QUIET_BUILD,
        _ORPHANS,
        _bool("rm", "Remove the container when it exits"),
        _QUIET,
        _bool("service-ports", "Publish all ports of the service", "P"),
        _text("name", "Assign a name to the container"),
        _text("entrypoint", "Override the entrypoint of the image"),
        _PULL,
        _list("env-from-file", "Set environment variables from file"),
        _list("label", "Add or override a label", "l"),
        _list("publish", "Publish a container's port(s) to the host", "p"),
        _list("volume", "Bind mount a volume", "v"),
        _list("cap-add", "Add Linux capabilities"),
        _list("cap-drop", "Drop Linux capabilities"),
    )


def _config_flags() -> tuple[Flag, ...]:
    return (
        _text("format", "Format the output (yaml|json)"),
        _list("filter", "With --services, only those with profile=NAME or label=KEY[=VALUE]"),
        _text("hash", "Print the service config hash, one per line ('*': of all)"),
        _text("output", "Save to file (default to stdout)", "o"),
        _bool("quiet", "Only validate the configuration, don't print anything", "q"),
        _bool("services", "Print the service names, one per line"),
        _bool("volumes", "Print the volume names, one per line"),
        _bool("networks", "Print the network names, one per line"),
        _bool("images", "Print the image names, one per line"),
        _bool("models", "Print the model names, one per line"),
        _bool("profiles", "Print the profile names, one per line"),
        _bool("variables", "Print model variables and default values"),
        _bool("environment", "Print environment used for interpolation"),
        _bool("no-interpolate", "Don't interpolate environment variables"),
        _bool("no-normalize", "Don't normalize the model"),
        _bool("no-path-resolution", "Don't resolve file paths"),
        _bool("no-consistency", "Don't check model consistency"),
        _bool("no-env-resolution", "Don't resolve service env files"),
        _bool("resolve-image-digests", "Pin image tags to digests"),
        _bool("lock-image-digests", "Print an override file with image digests only"),
    )


def _build_flags() -> tuple[Flag, ...]:
    return (
        _bool("no-cache", "Do not use cache when building the image"),
        _bool("pull", "Always attempt to pull a newer version of the image"),
        _bool("push", "Push service images"),
        _bool("print", "Print equivalent bake file"),
        _bool("check", "Check build configuration"),
        _bool("with-dependencies", "Also build dependencies (transitively)"),
        _QUIET,
        _list("build-arg", "Set build-time variables for services"),
        _text("ssh", "Set SSH authentications used when building (use 'default' for your SSH agent)"),
        _text("memory", "Set memory limit for the build container", "m"),
        _text("builder", "Accepted; there is one builder"),
        _text("provenance", "Accepted; no attestation is added"),
        _text("sbom", "Accepted; no attestation is added"),
    )


def _ps_flags() -> tuple[Flag, ...]:
    return (
        _bool("all", "Show all stopped containers (including those created by the run command)", "a"),
        _bool("quiet", "Only display IDs", "q"),
        _bool("services", "Display services"),
        _bool("no-trunc", "Don't truncate output"),
        _bool("orphans", "Include orphaned services (not declared by project)", default=1),
        _FORMAT,
        _list("filter", "Filter services by a property (supported: status)"),
        _list("status", "Filter services by status"),
    )


def _logs_flags() -> tuple[Flag, ...]:
    return (
        _bool("follow", "Follow log output", "f"),
        _bool("timestamps", "Show timestamps", "t"),
        _NO_COLOR,
        _NO_LOG_PREFIX,
        _text("tail", "Number of lines to show from the end of the logs for each container", "n", "all"),
        _text("since", "Show logs since timestamp (2013-01-02T13:23:37Z) or relative (42m)"),
        _text("until", "Show logs before a timestamp or relative"),
        _INDEX,
    )


_PATHS = "source target"


VERBS: dict[str, Verb] = {
    "attach": Verb(
        "cli:attach",
        "Attach local standard input, output, and error streams to a service's running container",
        lambda: (
            _text("detach-keys", "Override the key sequence for detaching from a container"),
            _INDEX,
            _bool("no-stdin", "Do not attach STDIN"),
            _bool("sig-proxy", "Proxy all received signals to the process", default=1),
        ),
        "service",
    ),
    "bridge": Verb(
        "refused:bridge", "Convert a project into another model (not offered)", arguments="words*"
    ),
    "build": Verb("images:build", "Build or rebuild services", _build_flags),
    "commit": Verb(
        "cli:commit",
        "Create a new image from a service container's changes",
        lambda: (
            _text("author", 'Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")', "a"),
            _list("change", "Apply Dockerfile instruction to the created image", "c"),
            _INDEX,
            _text("message", "Commit message", "m"),
            _bool("pause", "Pause container during commit", "p", 1),
        ),
        "service references*",
    ),
    "config": Verb(
        "config:config", "Parse, resolve and render compose file in canonical format", _config_flags
    ),
    "convert": Verb("config:config", "Same as config", _config_flags),
    "cp": Verb(
        "cli:cp",
        "Copy files/folders between a service container and the local filesystem",
        lambda: (
            _bool("archive", "Archive mode (copy all uid/gid information)", "a"),
            _bool("follow-link", "Always follow symbol link in SRC_PATH", "L"),
            _bool("all", "Include containers created by the run command"),
            _INDEX,
        ),
        _PATHS,
    ),
    "create": Verb("up:create", "Create containers for a service", _create_flags),
    "down": Verb(
        "down:down",
        "Stop and remove containers, networks",
        lambda: (
            _bool("volumes", "Remove named volumes of the Compose file and anonymous volumes", "v"),
            _ORPHANS,
            _text("rmi", "Remove images used by services (local|all)"),
            _TIMEOUT,
        ),
    ),
    "events": Verb(
        "inspect:events",
        "Receive real time events from containers",
        lambda: (
            _bool("json", "Output events as a stream of json objects"),
            _text("since", "Show all events created since timestamp"),
            _text("until", "Stream events until this timestamp"),
        ),
    ),
    "exec": Verb(
        "exec:exec_",
        "Execute a command in a running container",
        lambda: (*_terminal_flags(), _bool("privileged", "Give extended privileges to the process"), _INDEX),
        "service command+",
        True,
    ),
    "export": Verb(
        "cli:export",
        "Export a service container's filesystem as a tar archive",
        lambda: (_INDEX, _text("output", "Write to a file, instead of STDOUT", "o")),
        "service",
    ),
    "images": Verb(
        "images:images",
        "List images used by the created containers",
        lambda: (_bool("quiet", "Only display IDs", "q"), _text("format", "Format the output (table|json)")),
    ),
    "kill": Verb(
        "lifecycle:kill",
        "Force stop service containers",
        lambda: (_text("signal", "SIGNAL to send to the container", "s", "SIGKILL"), _ORPHANS),
    ),
    "logs": Verb("logs:logs", "View output from containers", _logs_flags),
    "ls": Verb(
        "inspect:ls",
        "List running compose projects",
        lambda: (
            _bool("all", "Show all stopped Compose projects", "a"),
            _bool("quiet", "Only display project names", "q"),
            _list("filter", "Filter output based on conditions provided (name=)"),
            _text("format", "Format the output (table|json)"),
        ),
        "",
    ),
    "pause": Verb("lifecycle:pause", "Pause services"),
    "port": Verb(
        "inspect:port",
        "Print the public port for a port binding",
        lambda: (_text("protocol", "tcp or udp", default="tcp"), _INDEX),
        "service private_port",
    ),
    "ps": Verb("ps:ps", "List containers", _ps_flags),
    "publish": Verb(
        "refused:publish",
        "Publish compose application (not offered)",
        lambda: (
            _bool("app", "Accepted"),
            _text("oci-version", "Accepted"),
            _bool("resolve-image-digests", "Accepted"),
            _bool("with-env", "Accepted"),
            _bool("insecure-registry", "Accepted"),
            _YES,
        ),
        "words*",
    ),
    "pull": Verb(
        "images:pull",
        "Pull service images",
        lambda: (
            _bool("ignore-buildable", "Ignore images that can be built"),
            _bool("ignore-pull-failures", "Pull what it can and ignores images with pull failures"),
            _bool("include-deps", "Also pull services declared as dependencies"),
            _bool("quiet", "Pull without printing progress information", "q"),
            _text("policy", "Apply pull policy (missing|always)"),
        ),
    ),
    "push": Verb(
        "images:push",
        "Push service images",
        lambda: (
            _bool("include-deps", "Also push images of services declared as dependencies"),
            _bool("ignore-push-failures", "Push what it can and ignores images with push failures"),
            _bool("quiet", "Push without printing progress information", "q"),
        ),
    ),
    "restart": Verb(
        "lifecycle:restart",
        "Restart service containers",
        lambda: (_TIMEOUT, _bool("no-deps", "Don't restart dependent services")),
    ),
    "rm": Verb(
        "lifecycle:rm",
        "Remove stopped service containers",
        lambda: (
            _bool("force", "Don't ask to confirm removal", "f"),
            _bool("stop", "Stop the containers, if required, before removing", "s"),
            _bool("volumes", "Remove any anonymous volumes attached to containers", "v"),
            _bool("all", "Accepted; one-off containers are removed too", "a"),
        ),
    ),
    "run": Verb("run:run", "Run a one-off command on a service", _run_flags, "service command*", True),
    "scale": Verb(
        "up:scale",
        "Scale services",
        lambda: (_bool("no-deps", "Don't start linked services"),),
        "scales+",
    ),
    "start": Verb(
        "lifecycle:start",
        "Start services",
        lambda: (
            _bool("wait", "Wait for services to be running|healthy"),
            _WAIT_TIMEOUT,
        ),
    ),
    "stats": Verb(
        "cli:stats",
        "Display a live stream of container(s) resource usage statistics",
        lambda: (
            _bool("all", "Show all containers (default shows just running)", "a"),
            _FORMAT,
            _bool("no-stream", "Disable streaming stats and only pull the first result"),
            _bool("no-trunc", "Do not truncate output"),
        ),
    ),
    "stop": Verb("lifecycle:stop", "Stop services", lambda: (_TIMEOUT,)),
    "top": Verb("inspect:top", "Display the running processes"),
    "unpause": Verb("lifecycle:unpause", "Unpause services"),
    "up": Verb("up:up", "Create and start containers", _up_flags),
    "version": Verb(
        "inspect:version",
        "Show the version information",
        lambda: (_bool("short", "Shows only the version number"), _text("format", "pretty or json", "f")),
        "",
    ),
    "volumes": Verb(
        "inspect:volumes", "List volumes", lambda: (_bool("quiet", "Only display volume names", "q"), _FORMAT)
    ),
    "wait": Verb(
        "lifecycle:wait",
        "Block until containers of all (or specified) services stop",
        lambda: (_bool("down-project", "Drops project when the first container stops"),),
        "services+",
    ),
    "watch": Verb(
        "watch:watch",
        "Watch build context for service and rebuild/refresh containers when files are updated",
        lambda: (
            _bool("no-up", "Do not build & start services before watching"),
            _bool("prune", "Prune dangling images on rebuild", default=1),
            _bool("quiet", "Hide build output"),
        ),
    ),
}

_DRY_RUN = _bool("dry-run", "Execute command in dry run mode")
# What a flag is called in the options of its verb, where that is not its own name.
_NAMES = {"services": "show_services", "no-TTY": "no_tty"}
_SPELLED = {
    "services": "[SERVICE...]",
    "words": "[ARGS...]",
    "service": "SERVICE",
    "command*": "[COMMAND] [ARGS...]",
    "command+": "COMMAND [ARGS...]",
    "references": "[REPOSITORY[:TAG]]",
    "scales": "SERVICE=REPLICAS...",
    "private_port": "PRIVATE_PORT",
    "source": "SRC_PATH",
    "target": "DEST_PATH",
    "services+": "SERVICE [SERVICE...]",
}


class Arguments:
    """The options of a verb as attributes: `--no-log-prefix` is `no_log_prefix`, arguments have their names."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def command(name: str) -> Command:
    """The verb as a command of `cli.flags`."""
    verb = VERBS[name]
    names = verb.arguments.split()
    spelled = [_SPELLED.get(one, _SPELLED.get(one.rstrip("*+"), one)) for one in names]
    flags = (*verb.flags(), _DRY_RUN)
    return Command(
        f"compose {name}",
        " ".join(["[OPTIONS]", *spelled]),
        verb.summary,
        flags,
        least=sum(not one.endswith("*") for one in names),
        most=-1 if any(one[-1] in "*+" for one in names) else len(names),
        is_interspersed=not verb.is_command,
        usage_code=16,
        is_count_short=name in ("attach", "commit", "exec", "export", "port", "run", "scale"),
    )


def arguments(name: str, options: Options) -> Arguments:
    """What was given, by name. Flags not given have their default: False, None, []."""
    verb = VERBS[name]
    found: dict[str, Any] = {}
    for flag in options.command.flags:
        key = _NAMES.get(flag.name, flag.name.replace("-", "_"))
        if flag.kind == "bool":
            found[key] = options.on(flag.name)
        elif flag.kind == "list":
            found[key] = options.texts(flag.name)
        elif flag.kind == "int":
            found[key] = options.number(flag.name)
        else:
            found[key] = options.text(flag.name) if options.has(flag.name) or flag.default else None
    left = list(options.arguments)
    for one in verb.arguments.split():
        if one[-1] in "*+":
            found[one[:-1]] = left
        else:
            found[one] = left.pop(0)
    return Arguments(**found)
