"""Being in a container: attach, exec, start, and the session `run` joins."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from dari.cli.context import Context, Failed
from dari.cli.flags import Flag, Options, verb

_KEYS = Flag("detach-keys", "text", "Override the key sequence for detaching a container")
_PROXY = Flag("sig-proxy", "bool", "Proxy all received signals to the process", default=1)
_PROXIED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGALRM")
_REGISTERED_SECONDS = 1.0  # how long a wait call may take to be known to the engine before we start anyway


class Session:
    """This terminal joined with one container until that ends or the user detaches."""

    def __init__(
        self,
        context: Context,
        container: str,
        *,
        tty: bool,
        stdin: bool,
        stdout: bool = True,
        stderr: bool = True,
        detach_keys: str = "",
        proxies_signals: bool = True,
        condition: str = "next-exit",
    ) -> None:
        from dari.client.streams import DEFAULT_DETACH_KEYS, parse_detach_keys

        self._context, self._docker = context, context.docker
        self._path = f"/containers/{container}"
        self._tty, self._stdin, self._stdout, self._stderr = tty, stdin, stdout, stderr
        self._keys = parse_detach_keys(detach_keys or DEFAULT_DETACH_KEYS)
        self._given_keys = detach_keys
        self._proxies_signals = proxies_signals and not tty
        self._condition = condition
        self._result: dict[str, Any] = {}
        self._trouble: Exception | None = None
        self._waiting: threading.Thread | None = None

    def start_and_join(self) -> int:
        """Attach, start, stay; the container's exit code, 0 after detaching."""
        return self._join(starts=True)

    def join(self) -> int:
        """Attach to a running container and stay; its exit code, 0 after detaching."""
        return self._join(starts=False)

    def _join(self, *, starts: bool) -> int:
        from dari.client.streams import interact

        stream = self._docker.hijack(
            "POST",
            f"{self._path}/attach",
            stream=True,
            stdin=self._stdin or None,
            stdout=self._stdout or None,
            stderr=self._stderr or None,
            detachKeys=self._given_keys or None,
        )
        with stream:
            self._begin_waiting()
            if starts:
                self._docker.post(f"{self._path}/start")
            restore = self._proxy_signals() if self._proxies_signals else []
            is_detached = interact(
                stream,
                tty=self._tty,
                stdin=0 if self._stdin else None,
                stdout=1 if self._stdout else None,
                stderr=2 if self._stderr else None,
                detach_keys=self._keys,
                on_resize=self._resize if self._tty else None,
            )
        for number, handler in restore:
            signal.signal(number, handler)
        if is_detached:
            self._context.complain("read escape sequence")
            return 0
        return self._exit_code()

    def _begin_waiting(self) -> None:
        # Asked before the start: afterwards a short or self-removing container may be gone already.
        registered = threading.Event()

        def wait() -> None:
            import json

            from dari.client.errors import ClientError

            try:
                response = self._docker.send("POST", f"{self._path}/wait", {"condition": self._condition})
                registered.set()
                self._result = json.loads(response.read())
            except (ClientError, OSError, ValueError) as error:
                self._trouble = error
            finally:
                registered.set()

        self._waiting = threading.Thread(target=wait, daemon=True)
        self._waiting.start()
        registered.wait(_REGISTERED_SECONDS)

    def _exit_code(self) -> int:
        assert self._waiting is not None
        self._waiting.join()
        if self._trouble is not None:
            raise Failed(f"Error waiting for container: {self._trouble}", 125)
        problem = (self._result.get("Error") or {}).get("Message")
        if problem:
            self._context.complain(str(problem))
        return int(self._result["StatusCode"])

    def _resize(self, rows: int, columns: int) -> None:
        from dari.client.errors import ClientError

        try:
            self._docker.post(f"{self._path}/resize", h=rows, w=columns)
        except ClientError:
            return  # ended in this very moment: its stream tells

    def _proxy_signals(self) -> list[tuple[int, Any]]:
        def send(number: int) -> None:
            from dari.client.errors import ClientError

            try:
                self._docker.post(f"{self._path}/kill", signal=signal.Signals(number).name)
            except ClientError as error:
                self._context.complain(f"cannot forward {signal.Signals(number).name}: {error}")

        def on_signal(number: int, _frame: object) -> None:
            # In a thread: the handler may have interrupted a request that holds the client's lock.
            threading.Thread(target=send, args=(number,), daemon=True).start()

        return [
            (number, signal.signal(number, on_signal)) for number in (getattr(signal, n) for n in _PROXIED)
        ]


@verb(
    "attach",
    "[OPTIONS] CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    _KEYS,
    Flag("no-stdin", "bool", "Do not attach STDIN"),
    _PROXY,
    least=1,
    most=1,
)
def attach(context: Context, options: Options) -> int:
    name = options.arguments[0]
    found = context.docker.get(f"/containers/{name}/json")
    state = found["State"]
    if not state["Running"]:
        raise Failed("cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise Failed("cannot attach to a paused container, unpause it first")
    config = found["Config"]
    return Session(
        context,
        found["Id"],
        tty=config["Tty"],
        stdin=config["OpenStdin"] and not options.on("no-stdin"),
        detach_keys=options.text("detach-keys"),
        proxies_signals=options.on("sig-proxy"),
    ).join()


@verb(
    "start",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    Flag("attach", "bool", "Attach STDOUT/STDERR and forward signals", "a"),
    _KEYS,
    Flag("interactive", "bool", "Attach container's STDIN", "i"),
    _PROXY,
    least=1,
)
def start(context: Context, options: Options) -> int:
    if not options.on("attach") and not options.on("interactive"):
        return context.each(options.arguments, lambda name: context.docker.post(f"/containers/{name}/start"))
    if len(options.arguments) > 1:
        raise Failed("you cannot start and attach multiple containers at once")
    found = context.docker.get(f"/containers/{options.arguments[0]}/json")
    config = found["Config"]
    return Session(
        context,
        found["Id"],
        tty=config["Tty"],
        stdin=options.on("interactive") and config["OpenStdin"],
        detach_keys=options.text("detach-keys"),
        proxies_signals=options.on("sig-proxy"),
        condition="removed" if found["HostConfig"].get("AutoRemove") else "next-exit",
    ).start_and_join()


@verb(
    "exec",
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    "Execute a command in a running container",
    Flag("detach", "bool", "Detached mode: run command in the background", "d"),
    _KEYS,
    Flag("env", "list", "Set environment variables", "e"),
    Flag("env-file", "list", "Read in a file of environment variables"),
    Flag("interactive", "bool", "Keep STDIN open even if not attached", "i"),
    Flag("privileged", "bool", "Give extended privileges to the command"),
    Flag("tty", "bool", "Allocate a pseudo-TTY", "t"),
    Flag("user", "text", "Username or UID (format: <name|uid>[:<group|gid>])", "u"),
    Flag("workdir", "text", "Working directory inside the container", "w"),
    least=2,
    is_interspersed=False,
)
def exec_(context: Context, options: Options) -> int:
    from dari.cli.container_config import environment
    from dari.client.errors import ApiError

    name, *command = options.arguments
    tty, stdin, is_detached = options.on("tty"), options.on("interactive"), options.on("detach")
    if tty and stdin and not is_detached and not os.isatty(0):
        raise Failed("the input device is not a TTY")
    body = {
        "AttachStdin": stdin and not is_detached,
        "AttachStdout": not is_detached,
        "AttachStderr": not is_detached,
        "Cmd": command,
        "Env": environment(options.texts("env-file"), options.texts("env"), os.environ, _read),
        "Privileged": options.on("privileged"),
        "Tty": tty,
        "User": options.text("user"),
        "WorkingDir": options.text("workdir"),
    }
    if options.text("detach-keys"):
        body["DetachKeys"] = options.text("detach-keys")
    made = context.docker.post(f"/containers/{name}/exec", body)["Id"]
    try:
        if is_detached:
            context.docker.post(f"/exec/{made}/start", {"Detach": True, "Tty": tty})
            return 0
        return _join_exec(context, options, made, tty, stdin)
    except ApiError as error:
        from dari.cli.main import start_error_code

        code = start_error_code(error.message)
        raise Failed(str(error), code if code != 125 else 1) from error


def _join_exec(context: Context, options: Options, made: str, tty: bool, stdin: bool) -> int:
    from dari.client.errors import ClientError
    from dari.client.streams import DEFAULT_DETACH_KEYS, interact, parse_detach_keys

    def resize(rows: int, columns: int) -> None:
        try:
            context.docker.post(f"/exec/{made}/resize", h=rows, w=columns)
        except ClientError:
            return  # ended in this very moment: its stream tells

    with context.docker.hijack("POST", f"/exec/{made}/start", {"Detach": False, "Tty": tty}) as stream:
        is_detached = interact(
            stream,
            tty=tty,
            stdin=0 if stdin else None,
            detach_keys=parse_detach_keys(options.text("detach-keys") or DEFAULT_DETACH_KEYS),
            on_resize=resize if tty else None,
        )
    if is_detached:
        return 0
    return int(context.docker.get(f"/exec/{made}/json")["ExitCode"] or 0)


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
