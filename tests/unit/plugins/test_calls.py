"""Calls to a plugin: the handshake, errors, silence, death and nonsense."""

from __future__ import annotations

import http.server
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.fakes.plugin import FakePlugin
from tests.patience import PATIENCE
from tests.store.certificates import make

from dari.kernel.plugin import MIME_TYPE, PluginFailure, PluginMissing, Plugins
from dari.model.plugin import Answer, JoinAnswer, NetworkRef, PoolAnswer

JOIN = "NetworkDriver.Join"
REQUEST = NetworkRef(network_id="n")


@pytest.fixture
def acme(tmp_path: Path) -> Iterator[FakePlugin]:
    with FakePlugin(tmp_path, "acme", "NetworkDriver") as made:
        yield made


@pytest.fixture
def plugins(tmp_path: Path) -> Iterator[Plugins]:
    made = Plugins((str(tmp_path),), timeout=10 * PATIENCE)
    yield made
    made.close()


def test_one_handshake_before_the_first_call(acme, plugins):
    assert plugins.names() == ["acme"] and plugins.activated() == {}
    acme.answers[JOIN] = {"InterfaceName": {"SrcName": "x", "DstPrefix": None}, "Gateway": None, "More": 1}
    for _ in range(2):
        answer = plugins.call("acme", JOIN, REQUEST, JoinAnswer)
        assert answer.interface_name.src_name == "x" and not answer.gateway
    assert [name for name, _ in acme.calls] == ["Plugin.Activate", JOIN, JOIN]
    assert acme.calls[1][1] == {"NetworkID": "n"}
    assert acme.headers[0]["Accept"] == MIME_TYPE and acme.headers[0]["Content-Length"] == "0"
    assert plugins.activated() == {"acme": frozenset({"NetworkDriver"})}


def test_a_plugin_that_comes_back_is_greeted_again(acme, plugins):
    plugins.call("acme", JOIN, REQUEST, Answer)
    acme.stop()
    with pytest.raises(PluginMissing, match='plugin "acme" not found'):
        plugins.call("acme", JOIN, REQUEST, Answer)
    acme.start()
    plugins.call("acme", JOIN, REQUEST, Answer)
    assert [name for name, _ in acme.calls].count("Plugin.Activate") == 2


def test_another_subsystem_is_refused(acme, plugins):
    with pytest.raises(PluginFailure, match="acme implements NetworkDriver, not IpamDriver"):
        plugins.call("acme", "IpamDriver.RequestPool", None, PoolAnswer)


@pytest.mark.parametrize(
    ("answer", "text", "status"),
    [
        ({"Err": "no room"}, "remote: no room", 0),
        ({"Error": "no room"}, "remote: no room", 0),
        ((500, '{"Err": "no room"}'), "NetworkDriver.Join: no room", 500),
        ((404, "404 page not found\n"), "NetworkDriver.Join: 404 page not found", 404),
        ((500, b"\xff\xfe"), "NetworkDriver.Join: ", 500),
        (b"<html>", "plugin acme: NetworkDriver.Join: the answer makes no sense", 0),
        ({"Err": ["x"]}, "plugin acme: NetworkDriver.Join: the answer makes no sense", 0),
        ([], "plugin acme: NetworkDriver.Join: the answer makes no sense", 0),
    ],
)
def test_errors(acme, plugins, answer, text, status):
    acme.answers[JOIN] = answer
    with pytest.raises(PluginFailure) as caught:
        plugins.call("acme", JOIN, REQUEST, Answer)
    assert str(caught.value).startswith(text) and caught.value.status == status


def test_an_empty_answer_is_none(acme, plugins):
    acme.answers[JOIN] = b""
    assert plugins.call("acme", JOIN, REQUEST, Answer) == Answer()


def test_a_long_answer_is_not_read_to_its_end(acme, plugins):
    acme.answers[JOIN] = b" " * (5 << 20)
    with pytest.raises(PluginFailure, match="longer than 4 MiB"):
        plugins.call("acme", JOIN, REQUEST, Answer)


def test_silence_ends(acme, plugins):
    plugins.call("acme", JOIN, REQUEST, Answer)
    acme.hang.add(JOIN)
    plugins.timeout = 0.4
    with pytest.raises(PluginFailure, match=r"NetworkDriver.Join: no answer within 0.4 seconds"):
        plugins.call("acme", JOIN, REQUEST, Answer)


def test_a_death_in_mid_call_is_told(acme, plugins):
    plugins.call("acme", JOIN, REQUEST, Answer)
    plugins.timeout = 0.9
    acme.die.add(JOIN)
    with pytest.raises(PluginFailure, match=r"plugin acme \(unix://.*acme.sock\): NetworkDriver.Join: "):
        plugins.call("acme", JOIN, REQUEST, Answer)


def test_a_socket_where_nobody_listens(acme, plugins):
    acme.stop(leaves_socket=True)
    plugins.timeout = 0.9
    with pytest.raises(PluginFailure, match=r"Plugin.Activate: connection refused") as caught:
        plugins.network("acme")
    assert not isinstance(caught.value, PluginMissing)


def test_it_is_tried_again_until_it_is_back(acme, tmp_path):
    plugins = Plugins((str(tmp_path),), timeout=20 * PATIENCE)
    plugins.call("acme", JOIN, REQUEST, Answer)
    acme.stop(leaves_socket=True)
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(plugins.call, "acme", JOIN, REQUEST, Answer)
        time.sleep(0.1)
        acme.start()
        assert asked.result(20) == Answer()
    plugins.close()


def test_who_waits_hears_of_the_end(acme, tmp_path):
    plugins = Plugins((str(tmp_path),), timeout=60 * PATIENCE)
    acme.hang.add(JOIN)
    asked = plugins.threads.submit(plugins.call, "acme", JOIN, REQUEST, Answer)
    acme.wait_for(JOIN)
    plugins.close()
    with pytest.raises(PluginFailure):
        asked.result(10)


def test_capabilities_are_asked_once_and_checked(acme, plugins):
    assert plugins.network("acme").scope == "local" and plugins.network("acme").scope == "local"
    assert [name for name, _ in acme.calls].count("NetworkDriver.GetCapabilities") == 1
    acme.stop()
    acme.answers["NetworkDriver.GetCapabilities"] = {"Scope": "galaxy"}
    acme.start()
    with pytest.raises(PluginFailure, match="expecting 'local' or 'global', got galaxy"):
        plugins.network("acme")


def test_an_ipam_plugin_without_capabilities_has_none(tmp_path, plugins):
    with FakePlugin(tmp_path, "pools", "IpamDriver") as made:
        made.answers["IpamDriver.GetCapabilities"] = (404, "unknown")
        assert not plugins.ipam("pools").requires_mac and not plugins.ipam("pools").requires_replay


def test_a_bad_file_is_a_failure_not_an_absence(tmp_path, plugins):
    (tmp_path / "odd.spec").write_text("nonsense")
    with pytest.raises(PluginFailure, match=r"odd.spec: Unknown protocol"):
        plugins.network("odd")
    assert plugins.url("odd") == "" and plugins.names() == ["odd"]


def test_tls_with_an_authority_and_a_client_certificate(tmp_path):
    (tmp_path / "tls").mkdir()
    files = make(tmp_path / "tls")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server, files.server_key)
    context.load_verify_locations(files.ca)
    context.verify_mode = ssl.CERT_REQUIRED

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"Implements": ["NetworkDriver"], "Scope": "global"}')

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    url = f"https://127.0.0.1:{server.server_address[1]}"
    keys = f'"CertFile": "{files.client}", "KeyFile": "{files.client_key}"'
    specs = {
        "good": f'{{"Addr": "{url}", "TLSConfig": {{"CAFile": "{files.ca}", {keys}}}}}',
        "blind": f'{{"Addr": "{url}", "TLSConfig": {{{keys}}}}}',
        "nobody": f'{{"Addr": "{url}", "TLSConfig": {{"CAFile": "{files.ca}"}}}}',
        "stranger": f'{{"Addr": "{url}", "TLSConfig": {{"CAFile": "{files.strangers_ca}", {keys}}}}}',
        "lost": f'{{"Addr": "{url}", "TLSConfig": {{"CAFile": "{tmp_path}/none"}}}}',
    }
    for name, text in specs.items():
        (tmp_path / f"{name}.json").write_text(text)
    plugins = Plugins((str(tmp_path),), timeout=10 * PATIENCE)
    try:
        assert plugins.network("good").scope == "global"
        assert plugins.network("blind").scope == "global"
        plugins.timeout = 0.9
        for name in ("nobody", "stranger", "lost"):
            with pytest.raises(PluginFailure, match=name):
                plugins.network(name)
    finally:
        plugins.close()
        server.shutdown()
        server.server_close()
