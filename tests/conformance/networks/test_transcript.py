"""The docker command says about dari's networks what it says about dockerd's, word for word.

docker.json is what a dockerd printed (transcript.py records it). Where dari speaks as a newer Docker does, or
differs on purpose, the step is in different.json with what is said instead, and why; a step that agrees again must
leave it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter

import pytest
from tests.conformance.networks import transcript
from tests.patience import PATIENCE
from tests.scenarios.conftest import IMAGE, Node


def test_networks(node: Node) -> None:
    program = shutil.which("docker")
    if program is None:
        pytest.skip("needs the docker command")
    recorded = json.loads(transcript.FILE.read_text())
    assert [each["step"] for each in recorded["steps"]] == transcript.STEPS, "record the steps anew"
    # The recorded dockerd's version of the API, so that shapes compare.
    environment = {**os.environ, "DOCKER_API_VERSION": "1.41", "DOCKER_HOST": f"unix://{node.socket}"}

    def run(*words: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [program, *(IMAGE if word == "busybox" else word for word in words)],
            env=environment, capture_output=True, text=True, timeout=60 * PATIENCE, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    made = transcript.play(run)
    wrong: list[str] = []
    times: Counter[str] = Counter()
    different = json.loads(transcript.DIFFERENT.read_text())
    unused = set(different)
    for ours, theirs in zip(made, recorded["steps"], strict=True):
        step = str(theirs["step"])
        times[step] += 1
        name = step if times[step] == 1 else f"{step} #{times[step]}"
        unused.discard(name)
        expected, reason = different.get(name, ({}, ""))
        wanted = {**theirs, **expected}
        if expected and wanted == theirs:
            wrong.append(f"{name}: no difference any more ({reason})")
        if ours != wanted:
            wrong.append(f"{name}\n  dari:   {shown(ours)}\n  wanted: {shown(wanted)}")
    wrong += [f"{name}: no such step" for name in sorted(unused)]
    assert not wrong, "\n".join(wrong)


def shown(step: dict[str, object]) -> str:
    return f"{step['code']} {step['out']} {step['err']}"
