"""Building images from a Dockerfile, by buildah on the daemon's own store.

Must not know: who asked, JSON of the API.
Sources: buildah-build(1); Docker Engine API v1.51 `ImageBuild`.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tarfile

import msgspec

from dari.model.errors import DariError, Internal, InvalidArgument
from dari.model.image import Image
from dari.model.reference import Reference, parse
from dari.model.wire import Noun
from dari.runtime import registries
from dari.runtime.build_lines import Teller, Translator
from dari.runtime.dockerfile import check, json_words, steps
from dari.runtime.files import write_atomically
from dari.runtime.mounting import in_private_mounts
from dari.runtime.program import ProgramFailed, run
from dari.runtime.registries import Credentials
from dari.runtime.storage import Storage
from dari.runtime.transfer import Transfer
from dari.runtime.tree import extract

_FAILED = re.compile(r'building at STEP "(?P<step>.*?)": (?P<reason>.*)', re.DOTALL)
_STATUS = re.compile(r"exit status (\d+)")


class BuildFailed(DariError):
    """A step failed; `code` is the exit status of a RUN, 0 for other reasons."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class BuildRequest(Noun, frozen=True, kw_only=True):
    """What to build. `tags` are full references. `network`: host, none or `ns:<path>`. Sizes in bytes.

    `dns`, `dns_search`, `dns_options` are for the resolv.conf of RUN steps; empty = as the host's.
    """

    tags: list[Reference] = []
    dockerfile: str = "Dockerfile"
    build_args: dict[str, str | None] = {}
    labels: dict[str, str] = {}
    target: str = ""
    network: str = "host"
    dns: list[str] = []
    dns_search: list[str] = []
    dns_options: list[str] = []
    platform: str = ""
    extra_hosts: list[str] = []
    cache_from: list[str] = []
    is_cached: bool = True
    is_pulled: bool = False
    is_squashed: bool = False
    is_quiet: bool = False
    shm_size: int = 0
    memory: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    credentials: dict[str, Credentials] = {}
    # What `RUN --mount=type=secret` and `type=ssh` find, by id; further contexts of `FROM` and `COPY --from` by name.
    secrets: dict[str, bytes] = {}
    ssh: dict[str, str] = {}
    contexts: dict[str, str] = {}
    ulimits: list[str] = []
    is_privileged: bool = False


def unpack_context(archive: str, folder: str) -> None:
    """Unpack a context, in any compression, so that no link of it leads out of `folder`. Blocks.

    Raises InvalidArgument.
    """
    os.makedirs(folder)
    try:
        with open(archive, "rb") as file:

            def inside() -> None:
                os.chroot(folder)
                os.chdir("/")
                with tarfile.open(fileobj=file, mode="r:*") as tar:
                    extract(tar, "/", confines=True)

            in_private_mounts(inside)
    except (tarfile.TarError, EOFError) as error:
        # What tarfile says has a line for each compression it tried.
        raise InvalidArgument("the build context is no tar archive, or ends early") from error
    except OSError as error:
        raise InvalidArgument(f"unpacking the build context: {error.strerror}: {error.filename}") from error


async def build(
    transfer: Transfer, folder: str, context: str, request: BuildRequest, teller: Teller
) -> Image:
    """Build the folder `context`; `folder` is for files of the build. `teller` hears of it as it goes.

    Raises InvalidArgument, BuildFailed, Internal where buildah is missing.
    """
    dockerfile = os.path.normpath(os.path.join("/", request.dockerfile)).lstrip("/")
    path = os.path.join(context, dockerfile)
    if dockerfile == "Dockerfile" and not os.path.lexists(path):
        # As Docker has it: the name that is looked for by itself may be written small.
        path = os.path.join(context, "dockerfile")
    if not _is_within(path, context):
        raise InvalidArgument(f"Cannot locate specified Dockerfile: {request.dockerfile}")
    if os.path.getsize(path) == 0:
        raise InvalidArgument(f"the Dockerfile ({request.dockerfile}) cannot be empty")
    with open(path, encoding="utf-8", errors="replace") as file:
        if not any(line.strip() and not line.lstrip().startswith("#") for line in file):
            raise InvalidArgument("dockerfile parse error: file with no instructions")
    argv = _command(transfer, folder, context, path, request)
    with open(path, encoding="utf-8", errors="replace") as file:
        plan = steps(file.read())
        check(plan, request.target)
        translate = Translator(teller, plan, lambda name: _find(transfer.storage, name), len(request.labels))
    try:
        async with transfer.builds.one(lambda: _remove_working(transfer)):
            await _run_build(transfer, argv, translate, folder, context)
    except FileNotFoundError as error:
        raise Internal("buildah is not installed, it builds images: install the package buildah") from error
    except ProgramFailed as error:
        raise failure(registries.fatal_message(error.lines), translate.step, translate.source) from error
    image = transfer.storage.all().get(f"sha256:{translate.image_id}")
    if image is None:
        raise Internal("the built image is not in the store")
    return image


async def _run_build(
    transfer: Transfer, argv: list[str], translate: Translator, folder: str, context: str
) -> None:
    try:
        await run(
            argv,
            translate.line,
            on_error=translate.error,
            cwd=context,
            env={"TMPDIR": folder, "BUILDAH_LAYERS": "true"},
        )
    except asyncio.CancelledError:
        await asyncio.to_thread(_end_steps, transfer.config.runtime, folder)
        raise


def _find(storage: Storage, name: str) -> str:
    """The id of an image by its name or by the beginning of its id; empty where there is none."""
    if re.fullmatch(r"[0-9a-f]{11,64}", name):
        return next((each for each in storage.all() if each.startswith(f"sha256:{name}")), "")
    try:
        image = storage.named(parse(name).stored)
    except InvalidArgument:
        return ""
    return image.id if image is not None else ""


def _is_within(path: str, context: str) -> bool:
    """Whether `path` is a file, and no link leads out of the context."""
    return os.path.isfile(path) and os.path.realpath(path).startswith(os.path.realpath(context) + "/")


def buildah(transfer: Transfer) -> list[str]:
    """The program with the options that name our store."""
    storage = transfer.storage
    return [
        "buildah", "--storage-driver", "overlay", "--root", storage.root, "--runroot", storage.run_root,
        "--storage-opt", "overlay.skip_mount_home=true",
    ]  # fmt: skip


def _command(
    transfer: Transfer, folder: str, context: str, dockerfile: str, request: BuildRequest
) -> list[str]:
    settings, auth = f"{folder}/registries.conf", f"{folder}/auth.json"
    policy = f"{folder}/policy.json"
    with open(dockerfile, encoding="utf-8", errors="replace") as file:
        domains = _domains(file.read())
    text = registries.registries_conf(transfer.config, domains)
    write_atomically(settings, text.encode(), is_durable=False)
    write_atomically(auth, registries.auth_file(request.credentials), 0o600, is_durable=False)
    write_atomically(policy, b'{"default": [{"type": "insecureAcceptAnything"}]}', is_durable=False)
    argv = [
        *buildah(transfer), "--registries-conf", settings, "build",
        "--authfile", auth, "--signature-policy", policy,
        "--isolation", "oci", "--runtime", transfer.config.runtime, "--format", "docker", "--layers",
        "--http-proxy=false", "--identity-label=false", "--force-rm", "--network", request.network,
        "--pull=always" if request.is_pulled else "--pull=false", "--file", dockerfile,
    ]  # fmt: skip
    if not request.is_cached or not _has_source(transfer.storage, request.cache_from):
        argv.append("--no-cache")
    if request.is_squashed:
        argv.append("--squash")
    for ref in request.tags:
        argv += ["--tag", ref.stored]
    for name, value in request.build_args.items():
        argv += ["--build-arg", name if value is None else f"{name}={value}"]
    for name, value in request.labels.items():
        argv += ["--label", f"{name}={value}"]
    for option, words in (
        ("--dns", request.dns),
        ("--dns-search", request.dns_search),
        ("--dns-option", request.dns_options),
    ):
        for word in words:
            argv += [option, word]
    for host in request.extra_hosts:
        argv += ["--add-host", host]
    for option, text in (
        ("--target", request.target),
        ("--platform", request.platform),
        ("--shm-size", f"{request.shm_size}b" if request.shm_size else ""),
        ("--memory", f"{request.memory}b" if request.memory else ""),
        ("--cpu-shares", str(request.cpu_shares) if request.cpu_shares else ""),
        ("--cpuset-cpus", request.cpuset_cpus),
    ):
        if text:
            argv += [option, text]
    for number, (name, data) in enumerate(request.secrets.items()):
        source = f"{folder}/secret-{number}"
        write_atomically(source, data, 0o600, is_durable=False)
        argv += ["--secret", f"id={name},src={source}"]
    for name, source in request.ssh.items():
        argv += ["--ssh", f"{name}={source}" if source else name]
    for name, source in request.contexts.items():
        argv += ["--build-context", f"{name}={source}"]
    for limit in request.ulimits:
        argv += ["--ulimit", limit]
    # Docker's steps have what its containers have, buildah's would go without these.
    argv += ["--cap-add", "all" if request.is_privileged else "CAP_AUDIT_WRITE,CAP_MKNOD,CAP_NET_RAW"]
    if (lines := _ignored(context, dockerfile)) is not None:
        write_atomically(f"{folder}/ignore", lines.encode("utf-8", "surrogateescape"), is_durable=False)
        argv += ["--ignorefile", f"{folder}/ignore"]
    return [*argv, context]


def _ignored(context: str, dockerfile: str) -> str | None:
    """The context's `.dockerignore` as buildah reads it, which takes a space after `!` for part of the name."""
    path = os.path.join(context, ".dockerignore")
    # Where the Dockerfile has one of its own, buildah finds that.
    if not _is_within(path, context) or os.path.exists(f"{dockerfile}.dockerignore"):
        return None
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = [line.strip() for line in file]
    return "".join(f"!{line[1:].strip()}\n" if line.startswith("!") else f"{line}\n" for line in lines)


def _has_source(storage: Storage, names: list[str]) -> bool:
    """Whether there is something to take the steps from: with `names`, one of these images has to be here."""
    found = False
    for name in names:
        try:
            found = found or storage.named(parse(name).stored) is not None
        except InvalidArgument:
            # What only BuildKit understands (`type=…`): Docker's builder skips it as well.
            continue
    return found or not names


def _domains(dockerfile: str) -> list[str]:
    """Registries a Dockerfile names."""
    found = []
    for match in re.finditer(
        r"^\s*(?:FROM\s+(?:--\S+\s+)*|COPY\s+.*--from=)(\S+)", dockerfile, re.MULTILINE | re.IGNORECASE
    ):
        try:
            found.append(parse(match[1]).domain)
        except InvalidArgument:
            # A stage's name, or a variable: no registry can be told from it.
            continue
    return list(dict.fromkeys(found))


def failure(message: str, step: str, source: str = "") -> DariError:
    """buildah's last words as Docker's error. `source`: the failed step as the file has it."""
    message = message.removeprefix("Error: ").removeprefix("error ")
    message = re.sub(r"\Aparsing main Dockerfile: \S+: ", "", message)
    if "nknown instruction" in message:
        word = re.search(r'nknown instruction: \\?"?([^"\\\s]*)', message)
        return BuildFailed(f"dockerfile parse error: unknown instruction: {word[1] if word else message}")
    match = _FAILED.search(message)
    if match:
        reason, instruction = match["reason"].strip(), match["step"]
        status = _STATUS.search(reason)
        verb, _, rest = instruction.partition(" ")
        if verb.upper() == "RUN" and status:
            listed = json_words(source.partition(" ")[2].strip())
            shown = " ".join(listed) if listed is not None else f"/bin/sh -c {rest}"
            return BuildFailed(f"The command '{shown}' returned a non-zero code: {status[1]}", int(status[1]))
        if verb.upper() in ("COPY", "ADD") and "no such file or directory" in reason:
            missing = re.search(r'"/?([^"]*)": no such file or directory', reason)
            name = missing[1] if missing else rest.split(" ")[0]
            outside = next((each for each in rest.split()[:-1] if each.split("/")[0] == ".."), "")
            if outside:
                return BuildFailed(
                    f"{verb.upper()} failed: forbidden path outside the build context: {outside} ()"
                )
            if re.search(r"[*?\[]", name):
                return BuildFailed(f"{verb.upper()} failed: no source files were specified")
            return BuildFailed(
                f"{verb.upper()} failed: file not found in build context or excluded by .dockerignore: "
                f"stat {name}: file does not exist"
            )
        return BuildFailed(f"{instruction}: {reason}")
    match = re.search(
        r"(?:initializing source|creating build container: .*?) ?docker://(\S+?): (.*)", message
    )
    if match or "pinging container registry" in message or "reading manifest" in message:
        name = step.split()[1] if step.upper().startswith("FROM ") and len(step.split()) > 1 else ""
        try:
            ref = parse(name or (match[1] if match else ""))
            return BuildFailed(registries.pull_error(ref, message).message)
        except InvalidArgument:
            return BuildFailed(message)
    return BuildFailed(message)


def tidy(transfer: Transfer) -> None:
    """At start: steps still running and working containers of builds that were cut short. Blocks."""
    runtime = transfer.config.runtime
    for container_id in _steps_of(runtime, transfer.temp_root):
        subprocess.run(
            [runtime, "delete", "--force", container_id], check=False, capture_output=True, timeout=60
        )
    _remove_working(transfer)


def _remove_working(transfer: Transfer) -> None:
    """Working containers, all of them: no build may run. Blocks."""
    path = f"{transfer.storage.root}/overlay-containers/containers.json"
    try:
        with open(path, encoding="utf-8") as file:
            if file.read().strip() in ("", "[]", "null"):
                return
    except FileNotFoundError:
        return
    subprocess.run([*buildah(transfer), "rm", "--all"], check=False, capture_output=True, timeout=60)


def _end_steps(runtime: str, folder: str) -> None:
    for container_id in _steps_of(runtime, folder):
        subprocess.run(
            [runtime, "delete", "--force", container_id], check=False, capture_output=True, timeout=60
        )


def _steps_of(runtime: str, folder: str) -> list[str]:
    """Containers whose bundle lies in `folder`: RUN steps, which outlive a killed buildah. Others' are left alone."""
    try:
        listed = subprocess.run(
            [runtime, "list", "--format", "json"], capture_output=True, timeout=60, check=True
        )
        rows = msgspec.json.decode(listed.stdout or b"null") or []
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError):
        return []
    return [str(row["id"]) for row in rows if str(row.get("bundle", "")).startswith(f"{folder}/")]


async def build_context(transfer: Transfer, archive: str, request: BuildRequest, teller: Teller) -> Image:
    """Build the context in the tar file `archive`; see `build`."""
    async with transfer.workspace() as folder:
        context = f"{folder}/context"
        await asyncio.to_thread(unpack_context, archive, context)
        return await build(transfer, folder, context, request, teller)
