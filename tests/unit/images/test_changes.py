"""Dockerfile instructions given to commit and import."""

import pytest

from dari.engine.changes import apply_changes
from dari.model.container import ContainerConfig, HealthConfig
from dari.model.errors import InvalidArgument


def after(*lines: str) -> ContainerConfig:
    return apply_changes(ContainerConfig(env=["A=1", "B=2"], working_dir="/w"), list(lines))


def test_commands_are_lists_or_shell_lines() -> None:
    assert after('CMD ["a", "b c"]').cmd == ["a", "b c"]
    assert after("CMD a b").cmd == ["/bin/sh", "-c", "a b"]
    assert after('entrypoint ["x"]').entrypoint == ["x"]


def test_env_replaces_by_name() -> None:
    assert after('ENV A="x y" C=3').env == ["A=x y", "B=2", "C=3"]
    assert after("ENV A some words").env == ["A=some words", "B=2"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (r'ENV C="\$A:$B" D=\$A', ["C=$A:2", "D=$A"]),
        ("ENV C='$A \"' D=${A}x${B}", ['C=$A "', "D=1x2"]),
        ("ENV C=${Z:-none} D=${A:+some} E=", ["C=none", "D=some", "E="]),
        ('ENV C="it\'s\\n" D=a\\ b', ["C=it's\\n", "D=a b"]),
    ],
)
def test_env_values_are_quoted_and_replaced_as_in_a_dockerfile(line: str, expected: list[str]) -> None:
    assert after(line).env == ["A=1", "B=2", *expected]


@pytest.mark.parametrize("line", ['ENV C="open', "ENV C='open"])
def test_an_open_quote_is_told(line: str) -> None:
    with pytest.raises(InvalidArgument, match="looking for matching"):
        after(line)


def test_the_others() -> None:
    config = after(
        'LABEL a="b c" d=e', "EXPOSE 80 53/udp", "USER 1:2", "WORKDIR x", "VOLUME /a /b", "STOPSIGNAL 9"
    )
    assert config.labels == {"a": "b c", "d": "e"}
    assert set(config.exposed_ports) == {"80/tcp", "53/udp"}
    assert (config.user, config.working_dir, set(config.volumes)) == ("1:2", "/w/x", {"/a", "/b"})
    assert config.stop_signal == "9"


def test_health_checks() -> None:
    assert after("HEALTHCHECK NONE").healthcheck == HealthConfig(test=["NONE"])
    found = after('HEALTHCHECK --interval=5s --retries=2 CMD ["x", "y"]').healthcheck
    assert found == HealthConfig(test=["CMD", "x", "y"], interval=5_000_000_000, retries=2)
    assert after("HEALTHCHECK CMD x | y").healthcheck == HealthConfig(test=["CMD-SHELL", "x | y"])


@pytest.mark.parametrize(
    "line", ["RUN x", "COPY a b", "ENV =x y=z 'q", "HEALTHCHECK x", "HEALTHCHECK --no=1s CMD x"]
)
def test_what_touches_files_or_is_wrong_is_refused(line: str) -> None:
    with pytest.raises(InvalidArgument):
        after(line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("foo x", "foo is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("user", "USER requires exactly one argument"),
        ("EXPOSE web", "invalid containerPort: web"),
        ("EXPOSE 80/tpc", "invalid proto: tpc"),
        ("STOPSIGNAL SIGNOPE", "invalid signal: SIGNOPE"),
        ("SHELL /bin/sh -c", "SHELL requires the arguments to be in JSON form"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
    ],
)
def test_refusals_are_dockers(line: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        after(line)
    assert caught.value.message == message


def test_values_come_from_the_environment_and_paths_are_plain() -> None:
    config = after("EXPOSE 808$A-8082/udp", "USER $B", "WORKDIR ../x/./$A", "VOLUME /v$A")
    assert set(config.exposed_ports) == {"8081/udp", "8082/udp"}
    assert (config.user, config.working_dir, set(config.volumes)) == ("2", "/x/1", {"/v1"})


def test_a_new_entry_point_forgets_the_old_command_and_shell_lines_use_the_shell() -> None:
    old = ContainerConfig(cmd=["old"])
    assert apply_changes(old, ['ENTRYPOINT ["x"]']).cmd is None
    assert apply_changes(old, ["CMD new", 'ENTRYPOINT ["x"]']).cmd == ["/bin/sh", "-c", "new"]
    assert apply_changes(old, ['SHELL ["/bin/ash"]', "CMD a b"]).cmd == ["/bin/ash", "a b"]
