"""One run of a Compose command: where the files are, which engine, how to speak to the user.

The only part of Compose that reads the environment and the disk. Reference: Docker Compose's global flags and
COMPOSE_* variables.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dari.compose.record import Record

if TYPE_CHECKING:
    import threading

    from dari.client.docker import Docker
    from dari.compose.execute import OnLine, Outcome
    from dari.compose.observed import ObservedContainer
    from dari.compose.plan.ops import Plan
    from dari.compose.progress import Progress
    from dari.compose.project import Project

DEFAULT_FILES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)


class UserError(Exception):
    """The command cannot be carried out; the text is for the user, `code` the exit code."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


class Globals(Record):
    """The flags before the verb."""

    files: tuple[str, ...] = ()
    name: str = ""
    directory: str = ""
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    parallel: int = 0
    progress: str = "auto"
    ansi: str = "auto"
    is_dry_run: bool = False
    all_resources: bool = False
    is_compatible: bool = False


def _no_auth(reference: str) -> Mapping[str, str]:
    return {}


def _no_build_auth() -> Mapping[str, str]:
    return {}


def _no_template(form: str, titles: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> str:
    raise UserError(f"unsupported format value {form!r}")


class Session:
    """Loads the project when it is first needed, connects when the engine is."""

    def __init__(
        self,
        flags: Globals,
        environ: Mapping[str, str] | None = None,
        docker: Docker | None = None,
        auth: Callable[[str], Mapping[str, str]] = _no_auth,
        build_auth: Callable[[], Mapping[str, str]] = _no_build_auth,
        template: Callable[[str, Mapping[str, str], Sequence[Mapping[str, Any]]], str] = _no_template,
        operation: str = "Running",
    ) -> None:
        self.flags = flags
        self.environ = dict(os.environ if environ is None else environ)
        self.environ = {**self._settings(flags), **self.environ}
        self._is_by_labels = bool(flags.name) and not flags.files
        if not flags.name and self.environ.get("COMPOSE_PROJECT_NAME"):
            self.flags = flags.replace(name=self.environ["COMPOSE_PROJECT_NAME"])
        self.auth = auth
        self.build_auth = build_auth
        self.template = template
        self.operation = operation
        self._docker = docker
        self._project: Project | None = None
        self._files: list[str] | None = None
        self._warned: set[str] = set()
        # A Compose file that came on stdin; it can be read once.
        self._stdin: str | None = None
        # The project is only asked for what is to be acted on: what of it has no effect is said by what makes it.
        self._is_looked_up = False
        self._refuse_settings()

    def _refuse_settings(self) -> None:
        """Raises UserError for variables and flags that cannot be what they are, or not together."""
        limit = self.environ.get("COMPOSE_PARALLEL_LIMIT")
        if limit is not None and not self.flags.parallel and not limit.lstrip("-").isdigit():
            raise UserError(f'COMPOSE_PARALLEL_LIMIT must be an integer (found: "{limit}")')
        mode = self._progress_mode()
        if mode not in ("auto", "tty", "plain", "json", "quiet", "none"):
            raise UserError(f'unsupported --progress value "{mode}"')
        if mode == "tty" and self._asked_ansi() == "never":
            raise UserError("can't use --progress tty while ANSI support is disabled")
        if mode == "plain" and self._asked_ansi() == "always":
            raise UserError("can't use --progress plain while ANSI support is forced")

    def _progress_mode(self) -> str:
        mode = self.environ.get("COMPOSE_PROGRESS") or "auto"
        return self.flags.progress if self.flags.progress != "auto" else mode

    # the engine and the user

    @property
    def docker(self) -> Docker:
        """The engine's client; connects at its first request."""
        if self._docker is None:
            from dari.client.docker import Docker

            self._docker = Docker(environ=self.environ)
        return self._docker

    @property
    def api(self) -> tuple[int, ...]:
        """The API version in use, for comparing."""
        from dari.client.docker import version_key

        return version_key(self.docker.api_version)

    def progress(self, *, is_quiet: bool = False, is_beside_logs: bool = False) -> Progress:
        """A fresh progress display as the user asked for it; `is_beside_logs`: logs are shown meanwhile."""
        from dari.compose.progress import Progress

        mode = self._progress_mode()
        if mode == "none":
            mode = "quiet"
        colour = {"never": False, "always": True}.get(self.ansi)
        if mode == "auto" and self._asked_ansi() == "never":
            mode = "plain"
        stream = sys.stdout if self.flag("COMPOSE_STATUS_STDOUT") else sys.stderr
        if is_beside_logs and mode in ("auto", "tty") and (mode == "tty" or stream.isatty()):
            mode = "lines"
        return Progress(
            "quiet" if is_quiet else mode,
            stream,
            is_coloured=colour,
            operation=self.operation,
            is_dry_run=self.flags.is_dry_run,
        )

    @property
    def ansi(self) -> str:
        """`auto`, `never` or `always`."""
        return "never" if self.environ.get("NO_COLOR") else self._asked_ansi()

    def _asked_ansi(self) -> str:
        """As `ansi`, without NO_COLOR, which is about colours only."""
        return self.flags.ansi if self.flags.ansi != "auto" else self.environ.get("COMPOSE_ANSI") or "auto"

    @property
    def parallel(self) -> int:
        """How much may be done at the same time; 0 means the default."""
        if self.flags.parallel:
            return self.flags.parallel
        text = self.environ.get("COMPOSE_PARALLEL_LIMIT", "")
        return int(text) if text.isdigit() else 0

    def flag(self, name: str) -> bool:
        """Whether a boolean COMPOSE_* variable is on."""
        return self.environ.get(name, "").lower() in ("1", "true", "yes", "on")

    def say(self, text: str) -> None:
        """A line on stdout."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def write(self, text: str) -> None:
        """Text on stdout as it is."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def warn(self, text: str) -> None:
        """A warning on stderr."""
        sys.stderr.write(f"WARN[0000] {text}\n")
        sys.stderr.flush()

    def complain(self, text: str) -> None:
        """A line on stderr."""
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def confirm(self, question: str) -> bool:
        """Asks the user; no answer is a no."""
        if self.flags.is_dry_run:
            return False
        sys.stdout.write(f"{question} (y/N) ")
        sys.stdout.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes", "true", "1")

    # files

    def read(self, path: str) -> str:
        """A file's text, `-` is stdin. Raises OSError."""
        if path == os.path.join(self.directory, "-"):
            if self._stdin is None:
                self._stdin = sys.stdin.read()
            return self._stdin
        return self.read_file(path)

    @property
    def files(self) -> list[str]:
        """Absolute paths of the Compose files. Raises UserError when there are none."""
        if self._files is None:
            self._files = self._find_files()
        return self._files

    def _find_files(self) -> list[str]:
        names = list(self.flags.files)
        if not names:
            text = self.environ.get("COMPOSE_FILE", "")
            separator = self.environ.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
            names = [name for name in text.split(separator) if name]
        if names:
            return [
                name if name == "-" else self._locate(name) or os.path.abspath(os.path.expanduser(name))
                for name in names
            ]
        folder = os.path.abspath(self.flags.directory or os.getcwd())
        while True:
            found = [name for name in DEFAULT_FILES if os.path.isfile(os.path.join(folder, name))]
            if found:
                if len(found) > 1:
                    self.warn(f"Found multiple config files with supported names: {', '.join(found)}")
                    self.warn(f"Using {os.path.join(folder, found[0])}")
                over = [name for name in OVERRIDES if os.path.isfile(os.path.join(folder, name))]
                return [os.path.join(folder, name) for name in (found[0], *over[:1])]
            above = os.path.dirname(folder)
            if above == folder:
                raise UserError("no configuration file provided: not found")
            folder = above

    def _locate(self, text: str) -> str:
        """The path of a Compose file that lies in a git repository; "" for every other. Raises UserError."""
        if not ("://" in text or text.startswith(("git@", "github.com/"))):
            return ""
        from dari.compose.remote import RemoteError, locate

        try:
            return locate(text, self.environ, DEFAULT_FILES)
        except RemoteError as error:
            raise UserError(str(error)) from None

    @property
    def directory(self) -> str:
        """The project directory: given, or the first file's folder."""
        if self.flags.directory:
            return os.path.abspath(os.path.expanduser(self.flags.directory))
        files = self._files if self._files is not None else self.files
        if not files or files[0] == "-":
            return os.getcwd()
        return os.path.dirname(files[0])

    def _settings(self, flags: Globals) -> dict[str, str]:
        """Variables of ours (`COMPOSE_…`) that the `.env` files set: as if they were in the environment."""
        names = list(flags.env_files) or self.environ.get("COMPOSE_ENV_FILES", "").split(",")
        paths = [os.path.abspath(os.path.expanduser(name)) for name in names if name]
        if not paths and not self.flag("COMPOSE_DISABLE_ENV_FILE"):
            paths = [self._near_env_file()]
        paths = [path for path in paths if os.path.isfile(path)]
        if not paths:
            return {}
        from dari.compose.load.pipeline import read_env_files

        found = read_env_files(paths, self.environ, self.read_file)
        return {name: value for name, value in found.items() if name.startswith("COMPOSE_")}

    def _near_env_file(self) -> str:
        """The `.env` file where the command is called, or where its flags say the project is."""
        flags = self.flags
        first = os.path.dirname(flags.files[0]) if flags.files and flags.files[0] != "-" else ""
        folder = flags.directory or first or os.getcwd()
        return os.path.abspath(os.path.join(os.path.expanduser(folder), ".env"))

    @staticmethod
    def read_file(path: str) -> str:
        """A file's text. Raises OSError."""
        with open(path, encoding="utf-8") as file:
            return file.read()

    def env_files(self) -> list[str]:
        """The `.env` files in force, absolute, later over earlier: the project's below the one at hand."""
        names = list(self.flags.env_files)
        if not names and self.environ.get("COMPOSE_ENV_FILES"):
            names = self.environ["COMPOSE_ENV_FILES"].split(",")
        if names:
            return [os.path.abspath(os.path.expanduser(name)) for name in names]
        if self.flag("COMPOSE_DISABLE_ENV_FILE"):
            return []
        near, own = self._near_env_file(), os.path.join(self.directory, ".env")
        return [path for path in dict.fromkeys((own, near)) if os.path.isfile(path)]

    def credentials(self) -> str:
        """The user's registry credentials as a client's configuration file; "" without any."""
        import base64
        import json

        config = self.build_auth().get("X-Registry-Config", "")
        known = json.loads(base64.urlsafe_b64decode(config)) if config else {}
        if not known:
            return ""
        auths = {}
        for registry, entry in known.items():
            pair = f"{entry.get('username', '')}:{entry.get('password', '')}".encode()
            auths[registry] = {"auth": base64.b64encode(pair).decode()}
        return json.dumps({"auths": auths})

    # the project

    def variables(self) -> dict[str, str]:
        """Variables for interpolation: the environment over the `.env` files."""
        from dari.compose.load.pipeline import read_env_files

        paths = self.env_files()
        near = self._near_env_file()
        if near not in paths or len(paths) == 1:
            return {**read_env_files(paths, self.environ, self.read), **self.environ}
        # What the file at hand says is known to the project's own file as the environment is.
        known = {**read_env_files([near], self.environ, self.read), **self.environ}
        return {**read_env_files([path for path in paths if path != near], known, self.read), **known}

    def load(self, named: Sequence[str] = (), more_profiles: Sequence[str] = (), **options: Any) -> Project:
        """The project; warnings are shown once. Raises ComposeError, UserError."""
        from dari.compose.load.pipeline import load

        files = [os.path.join(self.directory, "-") if name == "-" else name for name in self.files]
        variables = self.variables()
        profiles = [*self.flags.profiles]
        profiles += [one for one in variables.get("COMPOSE_PROFILES", "").split(",") if one and not profiles]
        loaded = load(
            files,
            read=self.read,
            environ=variables,
            directory=self.directory,
            name=self.flags.name or None,
            active_profiles=[*profiles, *more_profiles],
            named=named,
            home=os.path.expanduser("~"),
            locate=self._locate,
            **options,
        )
        for text in (*loaded.warnings, *(() if self._is_looked_up else loaded.inert)):
            if text not in self._warned:
                self._warned.add(text)
                self.warn(text)
        project = loaded.project.replace(env_files=tuple(self.flags.env_files))
        if self.flags.is_compatible or self.flag("COMPOSE_COMPATIBILITY"):
            project = compatible(project)
        return project

    def project(self, named: Sequence[str] = ()) -> Project:
        """The project, loaded once. `named` services are enabled whatever their profile."""
        if self._project is None:
            self._project = with_seccomp_profiles(self.load(named), self.read)
            if any(one.model.get("use_api_socket") for one in self._project.services.values()):
                from dari.compose.api_socket import with_api_socket

                self._project = with_api_socket(self._project, self.environ, self.credentials())
            for name in named:
                if name not in self._project.services:
                    raise UserError(f"no such service: {name}")
        return self._project

    def project_or_none(self, named: Sequence[str] = ()) -> Project | None:
        """The project, or None where its containers' labels are all there is to know of it.

        That is so when its name alone was given (`-p` without `-f`), whatever file is at hand, and when
        COMPOSE_PROJECT_NAME is set and the file at hand cannot be read. Files that are named must be readable.
        """
        if self._is_by_labels:
            return None
        self._is_looked_up = True
        try:
            return self.project(named)
        except (UserError, _compose_error()):
            if self.flags.files or not self.environ.get("COMPOSE_PROJECT_NAME"):
                raise
            return None
        finally:
            self._is_looked_up = False

    def name(self) -> str:
        """The project's name, from its files or as given."""
        project = self.project_or_none()
        return project.name if project else self.flags.name

    def containers(self, services: Sequence[str] = (), *, all: bool = True) -> list[ObservedContainer]:
        """The project's containers (one-off ones too), of the named services if any are named."""
        from dari.compose.observe import containers_of

        project = self.project_or_none(services)
        name = project.name if project else self.flags.name
        found = containers_of(self.docker, name, all=all)
        if services:
            found = tuple(one for one in found if one.service in services)
        return sorted(found, key=lambda one: (one.service, one.number, one.name))

    def carry_out(
        self,
        plan: Plan,
        progress: Progress,
        on_line: OnLine | None = None,
        stop: threading.Event | None = None,
        patience: float | None = None,
    ) -> Outcome:
        """Executes a plan, or only tells it with `--dry-run`. `on_line` takes what hooks say, `stop` ends it early,
        `patience` is for dependencies."""
        from dari.compose.execute import Outcome, execute

        for text in plan.warnings:
            self.warn(text)
        for title, word in plan.kept:
            progress.end(title, word)
        try:
            if not self.flags.is_dry_run:
                return execute(plan, self.docker, progress, self.parallel, on_line, stop, patience)
            for op in plan.ops:
                if op.doing:
                    progress.begin(op.title, op.doing)
                if op.done:
                    progress.end(op.title, op.done)
            return Outcome()
        finally:
            progress.close()

    def finish(self, outcome: Outcome) -> int:
        """Says what failed; the exit code."""
        for text in outcome.errors:
            self.complain(text)
        return 0 if outcome.is_success else 1


def compatible(project: Project) -> Project:
    """The project with names as the first Compose gave them: with underscores."""
    services = {
        name: service if service.has_image else service.replace(image=f"{project.name}_{name}")
        for name, service in project.services.items()
    }
    return project.replace(services=services, separator="_")


def with_seccomp_profiles(project: Project, read: Callable[[str], str]) -> Project:
    """The project with the text of seccomp profiles in place of their file names, as the API wants them.

    Raises UserError for a profile that cannot be read.
    """
    services = dict(project.services)
    for name, service in project.services.items():
        options = list(service.model.get("security_opt") or [])
        for position, option in enumerate(options):
            key, value = option.partition("=")[::2] if "=" in option else option.partition(":")[::2]
            if key != "seccomp" or value in ("unconfined", "builtin", "") or value.startswith("{"):
                continue
            path = os.path.join(project.directory, value)
            try:
                options[position] = f"seccomp={' '.join(read(path).split())}"
            except OSError as error:
                raise UserError(
                    f"services.{name}.security_opt: opening seccomp profile ({path}) failed: {error}"
                ) from None
            services[name] = service.replace(model={**service.model, "security_opt": options})
    return project.replace(services=services)


def _compose_error() -> type[Exception]:
    from dari.compose.load.errors import ComposeError

    return ComposeError
