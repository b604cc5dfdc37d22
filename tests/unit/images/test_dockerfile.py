"""What is seen to be wrong with a Dockerfile before anything is built."""

from __future__ import annotations

import pytest

from dari.model.errors import InvalidArgument
from dari.runtime.build import failure
from dari.runtime.dockerfile import check, steps


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM x\nNOPE y", "dockerfile parse error on line 2: unknown instruction: NOPE"),
        ("# c\n\nRUN x", "dockerfile parse error on line 3: no build stage in current context"),
        (
            "FROM x\nCOPY\n",
            "dockerfile parse error on line 2: COPY requires at least two arguments, but only ",
        ),
        ("FROM x\nCOPY --from=a b", "dockerfile parse error on line 2: COPY requires at least two arguments"),
        ('FROM x\nADD ["a b"]', "dockerfile parse error on line 2: ADD requires at least two arguments"),
        ("FROM x\nENV", "dockerfile parse error on line 2: ENV requires at least one argument"),
        ("FROM x\nLABEL a", "dockerfile parse error on line 2: LABEL must have two arguments"),
        ("FROM x\nUSER \\\n\n", "dockerfile parse error on line 2: USER requires exactly one argument"),
        ("FROM x\nEXPOSE 80 web", "dockerfile parse error on line 2: invalid containerPort: web"),
        (
            "FROM x\nONBUILD from y",
            "dockerfile parse error on line 2: FROM isn't allowed as an ONBUILD trigger",
        ),
        (
            "FROM x\nONBUILD onbuild y",
            "dockerfile parse error on line 2: Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
        ),
        (
            "FROM x\nRUN a \\\n b\nHEALTHCHECK --retries=2 foo x",
            'dockerfile parse error on line 4: unknown type "FOO" in HEALTHCHECK (try CMD)',
        ),
        (
            "FROM x\nSHELL sh",
            "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form",
        ),
    ],
)
def test_refusals_name_the_line(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check(steps(text))
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    "text",
    [
        '\ufeffARG a=1\nFROM x\nEXPOSE $a 80/udp 1-3\nEXPOSE "80"\nENV A b c\nENV A=b\nHEALTHCHECK NONE\nCMD\n',
        'FROM x\nCOPY --chown=1:1 ["a","b"]\nADD --link  --chmod=644 ["a b","c"]\n',
        'FROM x\nCOPY ["a", "b"]\nHEALTHCHECK --interval=3s CMD x\nONBUILD RUN y\nMAINTAINER me\n',
        "FROM x\nRUN <<EOF\nanything goes\nEOF\n",
        "# escape=`\nFROM x\nRUN a `\n# no\n b\n",
    ],
)
def test_what_is_right_or_cannot_be_told_passes(text: str) -> None:
    check(steps(text))


def test_a_target_is_a_stage() -> None:
    plan = steps("FROM x AS One\nFROM one\n")
    check(plan, "one")
    check(plan, "0")
    with pytest.raises(InvalidArgument):
        check(steps("FROM busybox\n"), "busybox")
    with pytest.raises(InvalidArgument, match='target stage "two" could not be found'):
        check(plan, "two")


@pytest.mark.parametrize(
    ("said", "source", "message"),
    [
        (
            'building at STEP "RUN nope x y": while running runtime: exit status 1',
            'RUN ["nope", "x y"]',
            "The command 'nope x y' returned a non-zero code: 1",
        ),
        (
            'building at STEP "COPY ../x /": stat: "/x": no such file or directory',
            "COPY ../x /",
            "COPY failed: forbidden path outside the build context: ../x ()",
        ),
        (
            'building at STEP "COPY no* /": stat: "/no*": no such file or directory',
            "COPY no* /",
            "COPY failed: no source files were specified",
        ),
        ("parsing main Dockerfile: /data/tmp/x/Dockerfile: LABEL must have two arguments", "",
         "LABEL must have two arguments"),
    ],
)  # fmt: skip
def test_failures_are_dockers(said: str, source: str, message: str) -> None:
    assert failure(said, "", source).message == message
