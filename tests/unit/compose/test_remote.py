"""Compose files in git repositories: what is one, and what is fetched of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dari.cli.compose import run
from dari.compose.remote import Reference, RemoteError, fetch, parse

URL = "https://example.test/apps/shop.git"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (URL, Reference(url=URL)),
        (f"{URL}#main", Reference(url=URL, ref="main")),
        (f"{URL}#v1:deploy/prod/", Reference(url=URL, ref="v1", folder="deploy/prod")),
        (f"{URL}#:deploy", Reference(url=URL, folder="deploy")),
        ("git@example.test:a/b.git", Reference(url="git@example.test:a/b.git")),
        ("ssh://example.test/a", Reference(url="ssh://example.test/a")),
        ("github.com/a/b#x", Reference(url="https://github.com/a/b", ref="x")),
        ("compose.yaml", None),
        ("./a.git", None),
        ("https://example.test/compose.yaml", None),
        ("ext::sh -c true", None),
    ],
)
def test_what_is_a_repository(text: str, wanted: Reference | None) -> None:
    assert parse(text) == wanted


def test_a_repository_is_kept_in_a_folder_of_its_own() -> None:
    """What another one's files lie in is nobody's name."""
    urls = (
        URL,
        "ssh://example.test/a/b/",
        "git@example.test:..",
        "https://github.com/a/...git",
        "git@a:.git",
    )
    assert [Reference(url=url).name for url in urls] == [
        "shop",
        "b",
        "repository",
        "repository",
        "repository",
    ]


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A repository at URL, which git finds in a folder of this host."""
    if not shutil.which("git"):
        pytest.skip("needs git")
    variables = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{tmp_path}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://example.test/apps/",
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.test",
        "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.test",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for name in ("COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"):
        monkeypatch.delenv(name, raising=False)
    work = tmp_path / "shop.git"
    (work / "web").mkdir(parents=True)
    (work / "compose.yaml").write_text("services: {app: {image: 'app:${TAG}', env_file: app.env}}")
    (work / "app.env").write_text("FLAVOUR=main\n")
    (work / ".env").write_text("TAG=1\n")
    (work / "web" / "compose.yml").write_text("services: {web: {image: web}}")
    git(work, "init", "-q", "-b", "main")
    git(work, "add", "-A")
    git(work, "commit", "-q", "-m", "one")
    git(work, "tag", "-a", "-m", "t", "v1")
    git(work, "checkout", "-q", "-b", "feature")
    (work / "app.env").write_text("FLAVOUR=feature\n")
    git(work, "commit", "-q", "-a", "-m", "two")
    git(work, "checkout", "-q", "main")
    return variables


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)


def test_branches_tags_and_folders(environ: dict[str, str]) -> None:
    for ref, flavour in (("", "main"), ("main", "main"), ("v1", "main"), ("feature", "feature")):
        root = fetch(Reference(url=URL, ref=ref), environ)
        assert (Path(root) / "app.env").read_text() == f"FLAVOUR={flavour}\n"
    again = fetch(Reference(url=URL, folder="web"), environ)
    assert again.endswith("/shop/web")
    kept = Path(environ["XDG_CACHE_HOME"]) / "dari" / "compose"
    assert len(list(kept.iterdir())) == 2


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        (Reference(url=URL, ref="none"), "couldn't find remote ref none"),
        (Reference(url=URL, folder="none"), "no none in commit"),
        (Reference(url=URL, folder="../.."), "leads out of the repository"),
        (Reference(url=URL, ref="--upload-pack=x"), "invalid reference"),
        (Reference(url="https://example.test/apps/gone.git"), "git ls-remote: "),
    ],
)
def test_what_cannot_be_had(environ: dict[str, str], reference: Reference, text: str) -> None:
    with pytest.raises(RemoteError, match=text):
        fetch(reference, environ)


def test_a_project_of_a_repository(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["-f", f"{URL}#feature", "config"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("name: shop\n")
    assert "image: app:1\n" in said
    assert "FLAVOUR: feature\n" in said
    assert run(["-f", f"{URL}#:none", "config"]) == 1
    assert "no none in commit" in capsys.readouterr().err


def test_a_repository_is_included_and_extended(
    environ: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("compose.yaml").write_text(
        f"include: ['{URL}#main:web']\n"
        f"services: {{mine: {{extends: {{file: '{URL}#feature', service: app}}, environment: {{OWN: 1}}}}}}\n"
    )
    monkeypatch.setenv("TAG", "9")
    assert run(["config"]) == 0
    said = capsys.readouterr().out
    assert "image: web\n" in said
    assert "image: app:9\n" in said
    assert "FLAVOUR: feature\n" in said


def test_git_is_quoted_with_what_it_was_to_do(environ: dict[str, str]) -> None:
    with pytest.raises(RemoteError, match=r"^git fetch: "):
        fetch(Reference(url=URL, ref="0" * 40), environ)
