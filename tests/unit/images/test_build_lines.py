"""buildah's report in Docker's words."""

import pytest

from dari.runtime.build import BuildFailed, _domains, _Translator, failure


def translate(*lines: str) -> str:
    said: list[str] = []
    translator = _Translator(said.append)
    for line in lines:
        translator.line(line)
    return "".join(said)


def test_steps_layers_and_output() -> None:
    said = translate(
        "STEP 1/2: FROM busybox",
        "[2/2] STEP 2/2: RUN echo hi",
        'time="2026" level=warning msg="noise"',
        "hi",
        "--> Using cache " + "a" * 64,
        "--> " + "a" * 11,
        "COMMIT docker.io/library/x:1",
        "Successfully tagged docker.io/library/x:1",
        "b" * 64,
    )
    assert said == (
        "Step 1/2 : FROM busybox\nStep 2/2 : RUN echo hi\nhi\n"
        f" ---> Using cache\n ---> {'a' * 12}\n ---> {'a' * 11}\n"
    )


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
