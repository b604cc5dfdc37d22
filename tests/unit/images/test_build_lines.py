"""buildah's report in Docker's words."""

from pathlib import Path

import pytest

from dari.runtime.build import BuildFailed, _domains, _has_source, _ignored, failure
from dari.runtime.build_lines import Translator
from dari.runtime.dockerfile import steps
from dari.runtime.storage import Storage

IDS = {"busybox": "sha256:" + "b" * 64, "a" * 11: "sha256:" + "a" * 64, "c" * 64: "sha256:" + "c" * 64}


class Teller:
    """Errors in angle brackets, images of stages in square ones."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str, *, is_error: bool = False) -> None:
        self.said.append(f"<{text}>" if is_error else text)

    def stage(self, image_id: str) -> None:
        self.said.append(f"[{image_id[:10]}]\n")


def translate(*lines: str, dockerfile: str = "", labels: int = 0) -> str:
    """What is said for buildah's lines; those that begin with `!` are its errors."""
    teller = Teller()
    translator = Translator(teller, steps(dockerfile), lambda name: IDS.get(name, ""), labels)
    for line in lines:
        if line.startswith("!"):
            translator.error(line[1:])
        else:
            translator.line(line)
    return "".join(teller.said)


def test_steps_layers_and_output() -> None:
    said = translate(
        "STEP 1/2: FROM busybox",
        "STEP 2/2: RUN echo hi",
        '!time="2026" level=warning msg="noise"',
        "hi",
        "!oh",
        "--> Using cache " + "a" * 64,
        "--> " + "a" * 11,
        "COMMIT docker.io/library/x:1",
        "Successfully tagged docker.io/library/x:1",
        "b" * 64,
        '!Error: building at STEP "RUN x": exit status 1',
    )
    assert said == (
        f"Step 1/2 : FROM busybox\n ---> {'b' * 12}\nStep 2/2 : RUN echo hi\nhi\n<oh\n> ---> Using cache\n"
        f" ---> {'a' * 12}\n"
    )


def test_an_id_that_was_told_short_is_told_as_all_are() -> None:
    assert translate("--> " + "a" * 11) == f" ---> {'a' * 12}\n"


def test_steps_are_counted_through_all_stages() -> None:
    said = translate(
        "[1/2] STEP 1/2: FROM scratch AS one",
        "[1/2] STEP 2/2: COPY x /x",
        "--> " + "a" * 11,
        "[2/2] STEP 1/3: FROM " + "c" * 64,
        "[2/2] STEP 2/3: CMD x",
        "[2/2] STEP 3/3: LABEL a=b",
        dockerfile="# escape=`\nARG z=1\nFROM scratch AS one\n\nCOPY x `\n # no\n /x\nFROM one\nCMD x\n",
        labels=1,
    )
    assert said.splitlines() == [
        "Step 1/6 : ARG z=1",
        "Step 2/6 : FROM scratch AS one",
        " ---> ",
        "Step 3/6 : COPY x /x",
        f" ---> {'a' * 12}",
        "[sha256:aaa]",
        "Step 4/6 : FROM one",
        f" ---> {'c' * 12}",
        "Step 5/6 : CMD x",
        "Step 6/6 : LABEL a=b",
    ]


def test_a_file_that_is_counted_otherwise_is_told_as_buildah_tells_it() -> None:
    said = translate("[1/2] STEP 1/7: FROM busybox", dockerfile="FROM busybox\nFROM x\n")
    assert said == "Step 1/7 : FROM busybox\n"


@pytest.mark.parametrize(
    ("said", "message", "code"),
    [
        (
            'Error: building at STEP "RUN false": while running runtime: exit status 3',
            "The command '/bin/sh -c false' returned a non-zero code: 3",
            3,
        ),
        (
            'Error: building at STEP "COPY nope /": checking on sources under "/tmp/x": copier: stat: "/nope": '
            "no such file or directory",
            "COPY failed: file not found in build context or excluded by .dockerignore: "
            "stat nope: file does not exist",
            0,
        ),
        ('Error: Unknown instruction: "FOO"', "dockerfile parse error: unknown instruction: FOO", 0),
    ],
)
def test_failures(said: str, message: str, code: int) -> None:
    error = failure(said, "")
    assert isinstance(error, BuildFailed)
    assert (error.message, error.code) == (message, code)


def test_registries_of_a_dockerfile() -> None:
    text = "FROM --platform=x 127.0.0.1:5000/a AS b\nFROM b\nCOPY --from=quay.io/x /a /b\nFROM $ARG\n"
    assert _domains(text) == ["127.0.0.1:5000", "docker.io", "quay.io"]


def test_a_space_after_the_mark_of_an_exception_is_no_part_of_the_name(tmp_path: Path) -> None:
    file = tmp_path / ".dockerignore"
    file.write_bytes(b" out \n!  out/in \n# !  no\n\n\xff\n")
    lines = _ignored(str(tmp_path), str(tmp_path / "Dockerfile"))
    assert lines is not None
    assert lines.encode("utf-8", "surrogateescape") == b"out\n!out/in\n# !  no\n\n\xff\n"


def test_patterns_of_the_dockerfiles_own_or_from_outside_are_left_alone(tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (tmp_path / "outside").write_text("x")
    assert _ignored(str(context), str(context / "Dockerfile")) is None
    (context / ".dockerignore").symlink_to("../outside")
    assert _ignored(str(context), str(context / "Dockerfile")) is None
    (context / ".dockerignore").unlink()
    (context / ".dockerignore").write_text("x")
    assert _ignored(str(context), str(context / "Dockerfile")) == "x\n"
    (context / "Dockerfile.dockerignore").write_text("y")
    assert _ignored(str(context), str(context / "Dockerfile")) is None


def test_steps_come_from_the_images_that_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path), str(tmp_path))
    here = {"docker.io/library/base:latest": object()}
    monkeypatch.setattr(storage, "named", here.get)
    assert _has_source(storage, [])
    assert _has_source(storage, ["type=inline", "gone:1", "base"])
    assert not _has_source(storage, ["gone:1", "type=registry,ref=base"])
