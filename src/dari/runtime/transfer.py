"""Moving images between registries, archives and the store, by skopeo.

Each function runs skopeo once per image and reports `Progress` as it goes. Must not know: who asked, events, JSON of
the API. Source: skopeo-copy(1), containers-transports(5).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from dari.model.config import Config
from dari.model.errors import Internal, InvalidArgument, NotFound
from dari.model.image import Image
from dari.model.platform import Platform, normal
from dari.model.reference import Reference
from dari.runtime import registries
from dari.runtime.blobs import Progress as Progress
from dari.runtime.blobs import PullWatcher, PushWatcher
from dari.runtime.blobs import Report as Report
from dari.runtime.files import write_atomically
from dari.runtime.program import ProgramFailed, output, run
from dari.runtime.registries import Credentials
from dari.runtime.savefiles import SaveFiles, blob_path
from dari.runtime.storage import Storage
from dari.runtime.underway import UnderWay
from dari.units import SECOND

_LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar"
_CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
_MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


class Transfer:
    """skopeo with the settings of one daemon."""

    def __init__(self, config: Config, storage: Storage) -> None:
        self.config = config
        self.storage = storage
        self.builds = UnderWay()

    @property
    def temp_root(self) -> str:
        """Where archives and blobs under way are kept; emptied when the daemon starts."""
        return f"{self.config.data_root}/tmp"

    def destination(self, name: str) -> str:
        """The store, as skopeo's transport names it."""
        options = "overlay.skip_mount_home=true"
        return f"containers-storage:[overlay@{self.storage.root}+{self.storage.run_root}:{options}]{name}"

    @contextlib.asynccontextmanager
    async def workspace(self) -> AsyncIterator[str]:
        """A folder for one transfer, gone afterwards."""
        os.makedirs(self.temp_root, mode=0o700, exist_ok=True)
        folder = tempfile.mkdtemp(dir=self.temp_root)
        try:
            yield folder
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, True)

    async def copy(
        self,
        folder: str,
        source: str,
        target: str,
        on_line: Callable[[str], None] | None = None,
        *,
        domains: Sequence[str] = (),
        credentials: tuple[str, Credentials] | None = None,
        options: Sequence[str] = (),
        platform: str = "",
    ) -> None:
        """One `skopeo copy`. Raises ProgramFailed, Internal where skopeo is missing."""
        argv = self._argv(folder, domains, credentials)
        if platform:
            system, _, rest = platform.partition("/")
            architecture, _, variant = rest.partition("/")
            argv += ["--override-os", system, "--override-arch", architecture or "amd64"]
            if variant:
                argv += ["--override-variant", variant]
        argv += ["copy", "--authfile", f"{folder}/auth.json", *options, source, target]
        try:
            # On a terminal it tells how many bytes of each layer there are.
            await run(argv, on_line, has_terminal=on_line is not None)
        except FileNotFoundError as error:
            raise Internal("skopeo is not installed, it moves images: install the package skopeo") from error

    def _argv(
        self, folder: str, domains: Sequence[str], credentials: tuple[str, Credentials] | None
    ) -> list[str]:
        """skopeo's global options; writes the files they name into `folder`."""
        settings = f"{folder}/registries.conf"
        text = registries.registries_conf(self.config, domains)
        write_atomically(settings, text.encode(), is_durable=False)
        auth = registries.auth_file(dict([credentials] if credentials else []))
        write_atomically(f"{folder}/auth.json", auth, 0o600, is_durable=False)
        return ["skopeo", "--insecure-policy", "--registries-conf", settings, "--tmpdir", folder]

    async def ask(self, folder: str, ref: Reference, credentials: Credentials, verb: Sequence[str]) -> bytes:
        """What a registry says about a name: one of skopeo's asking verbs. Raises NotFound, Internal."""
        argv = self._argv(folder, [ref.domain], (ref.domain, credentials))
        target = f"docker://{ref.name}" if "list-tags" in verb else f"docker://{_remote(ref)}"
        try:
            return await output([*argv, *verb, "--authfile", f"{folder}/auth.json", target])
        except ProgramFailed as error:
            raise registries.pull_error(ref, registries.fatal_message(error.lines)) from error
        except FileNotFoundError as error:
            raise Internal("skopeo is not installed, it moves images: install the package skopeo") from error

    async def manifest(self, ref: Reference, credentials: Credentials) -> bytes:
        """The manifest, or list of manifests, as the registry has it. Raises NotFound, Internal."""
        async with self.workspace() as folder:
            return await self.ask(folder, ref, credentials, ["inspect", "--raw"])

    async def image_config(self, ref: Reference, credentials: Credentials) -> bytes:
        """The config of the one image a name leads to, as the registry has it. Raises NotFound, Internal."""
        async with self.workspace() as folder:
            return await self.ask(folder, ref, credentials, ["inspect", "--config", "--raw"])

    async def pull(
        self, ref: Reference, credentials: Credentials, report: Report, platform: str = ""
    ) -> Image:
        """Fetch an image by name into the store; the answer has its new names. Raises NotFound, Internal."""
        before = self.storage.named(ref.stored)
        watcher = PullWatcher(report)
        async with self.workspace() as folder:
            raw = await self.ask(folder, ref, credentials, ["inspect", "--raw"])
            digest = ref.digest or f"sha256:{hashlib.sha256(raw).hexdigest()}"
            pinned = f"{ref.name}@{digest}"
            report(Progress(f"Pulling from {ref.path}", ref.digest or ref.tag))
            if before is None or pinned not in before.digests or platform:
                # By digest: the tag may move between the two calls.
                try:
                    await self.copy(
                        folder,
                        f"docker://{pinned}",
                        self.destination(ref.stored),
                        watcher.line,
                        domains=[ref.domain],
                        credentials=(ref.domain, credentials),
                        platform=platform,
                    )
                except ProgramFailed as error:
                    raise registries.pull_error(ref, registries.fatal_message(error.lines)) from error
        image = self.storage.named(ref.stored)
        if image is None:
            raise Internal(f"pulling {ref.familiar}: it is not in the store afterwards")
        self.storage.set_names(image.id, [pinned], [])
        watcher.finish()
        report(Progress(f"Digest: {digest}"))
        is_new = before is None or before.id != image.id
        verdict = "Downloaded newer image for" if is_new else "Image is up to date for"
        report(Progress(f"Status: {verdict} {ref.familiar}"))
        return self.storage.all()[image.id]

    async def list_tags(self, ref: Reference, credentials: Credentials) -> list[str]:
        """All tags of a repository. Raises NotFound, Internal."""
        async with self.workspace() as folder:
            raw = await self.ask(folder, ref, credentials, ["list-tags"])
        return [str(tag) for tag in json.loads(raw).get("Tags") or []]

    async def push(self, image: Image, ref: Reference, credentials: Credentials, report: Report) -> str:
        """Send an image to the registry its name says; the digest there. Raises NotFound, Internal."""
        watcher = PushWatcher(report)
        async with self.workspace() as folder:
            digest_file = f"{folder}/digest"
            try:
                await self.copy(
                    folder,
                    self.destination(f"@{image.id.removeprefix('sha256:')}"),
                    f"docker://{ref.name}:{ref.tag}",
                    watcher.line,
                    domains=[ref.domain],
                    credentials=(ref.domain, credentials),
                    options=["--digestfile", digest_file, "--format", "v2s2"],
                )
            except ProgramFailed as error:
                raise registries.push_error(ref, registries.fatal_message(error.lines)) from error
            with open(digest_file, encoding="ascii") as file:
                digest = file.read().strip()
        watcher.finish()
        size = len(self.storage.manifest_bytes(image.id))
        self.storage.set_names(image.id, [f"{ref.name}@{digest}"], [])
        report(Progress(f"{ref.tag}: digest: {digest} size: {size}"))
        report(Progress("", aux={"Tag": ref.tag, "Digest": digest, "Size": size}))
        return digest

    async def load(self, archive: str, platform: Platform | None = None) -> list[tuple[Image, list[str]]]:
        """The images of a `docker save` archive, each with the names the archive gives it; with `platform` those
        for it alone.

        Raises InvalidArgument if it is no such archive, NotFound if it has nothing for `platform`; then nothing was
        loaded.
        """
        entries = await asyncio.to_thread(_read_archive, archive)
        if platform is not None and not any(normal(each.platform) == normal(platform) for each in entries):
            others = ", ".join(sorted({str(each.platform) for each in entries})) or "nothing"
            raise NotFound(f"requested platform ({platform}) not found: the archive has {others}")
        loaded = []
        async with self.workspace() as folder:
            for index, (plain, names, found) in enumerate(entries):
                if platform is not None and normal(found) != normal(platform):
                    continue
                try:
                    await self.copy(
                        folder, f"docker-archive:{archive}:@{index}", self.destination(f"@{plain}")
                    )
                except ProgramFailed as error:
                    reason = registries.fatal_message(error.lines)
                    raise InvalidArgument(f"loading image {plain[:12]}: {reason}") from error
                image = self.storage.all().get(f"sha256:{plain}")
                if image is None:
                    raise Internal(f"loading image {plain[:12]}: it is not in the store afterwards")
                loaded.append((image, names))
        return loaded

    async def save(self, folder: str, images: Sequence[tuple[Image, list[str]]]) -> str:
        """A `docker save` archive of images with the names to keep, in `folder`; its path.

        An OCI layout, with the files on top of it by which `docker load` of any age finds its way.
        """
        files = SaveFiles()
        path = f"{folder}/save.tar"
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            written: set[str] = set()
            for number, (image, names) in enumerate(images):
                blobs = f"{folder}/{number}"
                plain = image.id.removeprefix("sha256:")
                try:
                    await self.copy(folder, self.destination(f"@{plain}"), f"dir:{blobs}")
                except ProgramFailed as error:
                    reason = registries.fatal_message(error.lines)
                    raise Internal(f"saving image {plain[:12]}: {reason}") from error
                for digest in (image.id, *image.diff_ids):
                    name = blob_path(digest)
                    if name not in written:
                        written.add(name)
                        blob = f"{blobs}/{digest.removeprefix('sha256:')}"
                        # The same image is the same archive, whenever it is saved.
                        entry = archive.gettarinfo(blob, name)
                        entry.mtime = image.created // SECOND
                        await asyncio.to_thread(_add_file, archive, entry, blob)
                sizes = {
                    digest: os.path.getsize(f"{blobs}/{digest.removeprefix('sha256:')}")
                    for digest in (image.id, *image.diff_ids)
                }
                shutil.rmtree(blobs)
                files.add(image, names, sizes)
            for name, data in files.rest():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        return path

    async def assemble(
        self, folder: str, config: dict[str, Any], base: Image | None, layer: str | None
    ) -> Image:
        """An image of `base`'s layers and the uncompressed tar `layer` with the image config `config`.

        `rootfs` in `config` is filled in here. The store has the base's layers, so they are only named.
        """
        diff_ids = list(base.diff_ids) if base else []
        sizes = [self.storage.layer_size(each) for each in base.layers] if base else []
        blobs = f"{folder}/blobs"
        os.makedirs(blobs)
        if layer is not None:
            plain = await asyncio.to_thread(_sha256_file, layer)
            diff_ids.append(f"sha256:{plain}")
            sizes.append(os.path.getsize(layer))
            os.rename(layer, f"{blobs}/{plain}")
        config["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
        raw = json.dumps(config, separators=(",", ":")).encode()
        plain = hashlib.sha256(raw).hexdigest()
        write_atomically(f"{blobs}/{plain}", raw, is_durable=False)
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": {"mediaType": _CONFIG_TYPE, "size": len(raw), "digest": f"sha256:{plain}"},
            "layers": [
                {"mediaType": _LAYER_TYPE, "size": size, "digest": digest}
                for digest, size in zip(diff_ids, sizes, strict=True)
            ],
        }
        write_atomically(f"{blobs}/manifest.json", json.dumps(manifest).encode(), is_durable=False)
        write_atomically(f"{blobs}/version", b"Directory Transport Version: 1.1\n", is_durable=False)
        try:
            await self.copy(folder, f"dir:{blobs}", self.destination(f"@{plain}"))
        except ProgramFailed as error:
            raise Internal(f"storing the image: {registries.fatal_message(error.lines)}") from error
        return self.storage.all()[f"sha256:{plain}"]


def _remote(ref: Reference) -> str:
    return f"{ref.name}@{ref.digest}" if ref.digest else f"{ref.name}:{ref.tag}"


class _Entry(NamedTuple):
    """An image in an archive. `plain`: its config's digest without `sha256:`."""

    plain: str
    names: list[str]
    platform: Platform


def _read_archive(path: str) -> list[_Entry]:
    try:
        with tarfile.open(path, "r:*") as archive:
            index = archive.extractfile("manifest.json")
            if index is None:
                raise KeyError("manifest.json")
            found = []
            for entry in json.load(index):
                config = archive.extractfile(entry["Config"])
                if config is None:
                    raise KeyError(entry["Config"])
                data = config.read()
                names = list(entry.get("RepoTags") or [])
                found.append(_Entry(hashlib.sha256(data).hexdigest(), names, _platform_of(data)))
            return found
    except KeyError as error:
        # tarfile's text is a sentence with the name in quotes.
        quoted = re.search(r"'([^']*)'", str(error.args[0]))
        name = quoted[1] if quoted else error.args[0]
        raise InvalidArgument(f"invalid archive: it has no {name}") from error
    except tarfile.ReadError as error:
        raise InvalidArgument("invalid archive: it is no tar archive, or ends early") from error
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise InvalidArgument(f"invalid archive: {error}") from error


def _platform_of(config: bytes) -> Platform:
    """Raises ValueError for what is no image's config."""
    raw = json.loads(config)
    if not isinstance(raw, dict):
        raise ValueError("an image's config is no object")
    return Platform(
        os=raw.get("os") or "linux",
        architecture=raw.get("architecture") or "",
        variant=raw.get("variant") or "",
    )


def _add_file(archive: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> None:
    with open(path, "rb") as file:
        archive.addfile(entry, file)


def _sha256_file(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
