"""The configuration: what is accepted, what the models hold afterwards, and what is said about everything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import AliasChoices, BaseModel

from proxy.config import ConfigError, Finding, RawSocketTransport, WebSocketTransport, WorkerConfig, check, load
from proxy.config.fields import subprotocols
from proxy.config.urls import parse_rawsocket_url, parse_websocket_url
from proxy.errors import InvalidConfiguration

ROOT = Path(__file__).resolve().parents[2]


def worker(**changes: Any) -> dict[str, Any]:
    """A worker item that is fine, with some keys replaced."""
    return {
        "type": "proxy",
        "connections": {"router1": connection()},
        "routes": {"realm1": {"anonymous": "router1"}},
        "transports": [transport()],
        **changes,
    }


def connection(**changes: Any) -> dict[str, Any]:
    """A connection item as Crossbar.io's documentation has it."""
    endpoint = {"type": "unix", "path": "router.sock"}
    return {
        "transport": {"type": "rawsocket", "endpoint": endpoint, "serializer": "cbor"},
        "auth": {"anonymous-proxy": {"type": "static"}},
        **changes,
    }


def transport(**changes: Any) -> dict[str, Any]:
    """A WebSocket transport on port 8080."""
    return {"type": "websocket", "endpoint": {"type": "tcp", "port": 8080}, **changes}


@pytest.fixture
def save(tmp_path: Path) -> Any:
    """Write a configuration and return its path."""

    def write(data: Any, name: str = "config.json") -> Path:
        path = tmp_path / name
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        return path

    return write


@pytest.fixture
def findings(save: Any) -> Any:
    """Check a configuration: its findings by place."""

    def run(data: Any, name: str = "config.json", worker_id: str | None = None) -> dict[str, Finding]:
        return {item.place: item for item in check(save(data, name), worker_id)}

    return run


def errors(found: dict[str, Finding]) -> dict[str, Finding]:
    """The errors among findings."""
    return {place: item for place, item in found.items() if item.severity == "error"}


# --- what is accepted --------------------------------------------------------------------------------------------


def test_defaults_are_those_of_crossbar(save: Any) -> None:
    config = load(save(worker())).config
    websocket = config.transports[0]
    assert isinstance(websocket, WebSocketTransport)
    options = websocket.options.model_dump()
    assert options == {
        "allowed_origins": ("*",),
        "allow_null_origin": True,
        "external_port": None,
        "enable_hybi10": True,
        "enable_rfc6455": True,
        "open_handshake_timeout": None,
        "close_handshake_timeout": None,
        "enable_webstatus": True,
        "validate_utf8": True,
        "mask_server_frames": False,
        "require_masked_client_frames": True,
        "apply_mask": True,
        "max_frame_size": 0,
        "max_message_size": 16 * 1024 * 1024,
        "auto_fragment_size": 0,
        "fail_by_drop": False,
        "echo_close_codereason": False,
        "tcp_nodelay": True,
        "auto_ping_interval": None,
        "auto_ping_timeout": None,
        "auto_ping_size": 12,
        "auto_ping_restart_on_any_traffic": False,
        "enable_flash_policy": None,
        "flash_policy": None,
        "compression": None,
        "require_websocket_subprotocol": True,
        "show_server_version": False,
    }
    assert websocket.id == "transport000"
    assert websocket.max_connections == 50_000
    assert websocket.serializers == ("json", "msgpack", "cbor")
    assert websocket.endpoint.backlog == 50
    assert websocket.endpoint.model_dump()["version"] == 4


def test_transport_without_auth_takes_anonymous_clients(save: Any) -> None:
    config = load(save(worker())).config
    websocket = config.transports[0]
    assert isinstance(websocket, WebSocketTransport)
    assert websocket.auth.anonymous is not None
    assert websocket.auth.anonymous.role == "anonymous"
    assert websocket.auth.anonymous.realm is None


def test_lone_connection_is_a_list_of_one(save: Any) -> None:
    config = load(save(worker(routes={"realm1": {"a_role": "router1", "other": ["router1", "router1"]}}))).config
    assert config.routes == {"realm1": {"a_role": ("router1",), "other": ("router1", "router1")}}


def test_stray_keys_are_warnings_with_the_nearest_key(findings: Any) -> None:
    item = connection(realm="realm1", url="ws://example", timeouts={"dail": 3})
    item["transport"]["endpoint"]["serializer"] = "cbor"
    data = worker(connections={"router1": item}, transports=[transport(optons={}, options={"max_mesage_size": 5})])
    found = findings(data)
    assert not errors(found)
    assert 'did you mean "dial"?' in found["connections.router1.timeouts.dail"].expected
    assert 'did you mean "options"?' in found["transports[0].optons"].expected
    assert 'did you mean "max_message_size"?' in found["transports[0].options.max_mesage_size"].expected
    for place in ("realm", "url", "transport.endpoint.serializer"):
        assert "unknown key, ignored" in found[f"connections.router1.{place}"].expected


@pytest.mark.parametrize(
    "name", ["standalone.yaml", "crossbar-node.json", "crossbar-node-managed.json", "browsers.yaml"]
)
def test_examples_are_valid(name: str) -> None:
    loaded = load(ROOT / "examples" / name, "proxy1" if "managed" in name else None)
    assert not any("unknown" in item.expected for item in loaded.warnings)
    types = {"websocket"} if name == "browsers.yaml" else {"websocket", "rawsocket"}
    assert {item.type for item in loaded.config.transports} == types


@pytest.mark.parametrize("name", ["config.yaml", "config.yml", "config.conf"])
def test_yaml_is_read_as_json_is(save: Any, name: str) -> None:
    plain = load(save(worker())).config
    assert load(save(yaml.safe_dump(worker()), name)).config == plain


def test_json_without_its_extension(save: Any) -> None:
    assert load(save(worker(), "config")).config.transports


def test_relative_paths_start_at_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ".crossbar"
    folder.mkdir()
    data = worker(transports=[transport(endpoint={"type": "unix", "path": "../front.sock"})])
    (folder / "config.json").write_text(json.dumps({"version": 2, "workers": [data]}))
    monkeypatch.chdir(tmp_path)
    config = load(".crossbar/config.json").config
    assert config.connections["router1"].transport.endpoint.model_dump()["path"] == str(folder / "router.sock")
    assert config.transports[0].endpoint.model_dump()["path"] == str(tmp_path / "front.sock")


def test_environment_in_port_and_path(save: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FRONT_PORT", "8443")
    monkeypatch.setenv("SOCKETS", str(tmp_path))
    items = [
        transport(endpoint={"type": "tcp", "port": "$FRONT_PORT"}),
        transport(endpoint={"type": "tcp", "port": "${FRONT_PORT}", "interface": "::1", "version": 6}),
        transport(endpoint={"type": "unix", "path": "$SOCKETS/front.sock"}),
    ]
    first, second, third = (
        item.endpoint.model_dump() for item in load(save(worker(transports=items))).config.transports
    )
    assert (first["port"], second["port"]) == (8443, 8443)
    assert third["path"] == str(tmp_path / "front.sock")


def test_endpoint_of_a_websocket_backend_comes_from_its_url(save: Any) -> None:
    item = {"transport": {"url": "ws://router.example:9000/ws?x=1"}, "auth": {"anonymous": {}}}
    backend = load(save(worker(connections={"router1": item}))).config.connections["router1"]
    assert backend.transport.endpoint.model_dump(include={"type", "host", "port"}) == {
        "type": "tcp",
        "host": "router.example",
        "port": 9000,
    }
    assert backend.transport.target.resource == "/ws?x=1"
    assert backend.auth_mode == "credential"


def test_anonymous_proxy_is_the_default_and_goes_first(save: Any) -> None:
    both = connection(auth={"anonymous": {}, "anonymous-proxy": {}})
    absent = {"transport": connection()["transport"]}
    config = load(save(worker(connections={"router1": both, "router2": absent}))).config
    assert [item.auth_mode for item in config.connections.values()] == ["anonymous-proxy"] * 2


def test_auth_method_without_value_in_yaml(save: Any) -> None:
    data = worker()
    text = yaml.safe_dump({**data, "connections": {}}) + (
        "connections:\n  router1:\n    transport: {url: 'ws://127.0.0.1:1/'}\n    auth:\n      anonymous:\n"
    ).replace("connections:\n", "", 0)
    text = text.replace("connections: {}\n", "")
    assert load(save(text, "config.yaml")).config.connections["router1"].auth_mode == "credential"


def test_endpoint_timeout_is_the_dial_timeout(save: Any) -> None:
    item = connection()
    item["transport"]["endpoint"]["timeout"] = 3
    other = connection(timeouts={"dial": 700})
    other["transport"]["endpoint"]["timeout"] = 3
    config = load(save(worker(connections={"router1": item, "router2": other}))).config
    assert [item.timeouts.dial for item in config.connections.values()] == [3000, 700]


@pytest.mark.parametrize("style", ["autoPingInterval", "auto_ping_interval"])
def test_backend_options_go_by_both_of_autobahns_names(save: Any, style: str) -> None:
    item = {"transport": {"url": "ws://x:1/", "options": {style: 2.5}}, "auth": {"anonymous": {}}}
    loaded = load(save(worker(connections={"router1": item})))
    assert loaded.config.connections["router1"].transport.options.auto_ping_interval == 2.5
    assert not loaded.warnings


def test_names_that_stand_for_nothing_are_skipped(save: Any) -> None:
    item = transport(serializers=["cbor", "flatbuffers.batched", "json.batched", "cbor"])
    router = connection(transport={**connection()["transport"], "serializers": ["cbor.batched", "cbor"]})
    loaded = load(save(worker(transports=[item], connections={"router1": router})))
    assert loaded.config.transports[0].model_dump()["serializers"] == ("cbor", "json.batched")
    assert loaded.config.connections["router1"].transport.serializers == ("cbor",)
    assert [item.place for item in loaded.warnings if "skipped" in item.expected] == [
        "connections.router1.transport.serializers[0]",
        "transports[0].serializers[1]",
    ]


@pytest.mark.parametrize(
    ("keys", "place", "value"),
    [
        ({"serializer": "ubjson"}, "transport.serializer", '"ubjson"'),
        ({"serializer": "json", "serializers": ["cbor"]}, "transport.serializer", '"json"'),
    ],
)
def test_a_serializer_that_is_never_tried(save: Any, keys: dict[str, Any], place: str, value: str) -> None:
    loaded = load(save(worker(connections={"router1": connection(transport={**connection()["transport"], **keys})})))
    assert [(item.place, item.value) for item in loaded.warnings if "has no effect" in item.expected] == [
        (f"connections.router1.{place}", value)
    ]


def test_rawsocket_peers_announce_their_limit(save: Any) -> None:
    limits = {"max_message_out": 4096}
    item = {"type": "rawsocket", "endpoint": {"type": "tcp", "port": 1}, "limits": limits}
    loaded = load(save(worker(connections={"router1": connection(limits=limits)}, transports=[item])))
    assert [item.place for item in loaded.warnings if "has no effect" in item.expected] == [
        "connections.router1.limits.max_message_out",
        "transports[0].limits.max_message_out",
    ]


def test_ubjson_and_flatbuffers_are_spoken_where_they_are_named(save: Any) -> None:
    named = load(save(worker(transports=[transport(serializers=["ubjson", "flatbuffers", "ubjson.batched"])])))
    assert named.config.transports[0].model_dump()["serializers"] == ("ubjson", "flatbuffers", "ubjson.batched")
    assert not [item for item in named.warnings if "skipped" in item.expected]
    assert load(save(worker())).config.transports[0].model_dump()["serializers"] == ("json", "msgpack", "cbor")


def test_batches_are_for_websocket(save: Any) -> None:
    item = {"type": "rawsocket", "endpoint": {"type": "tcp", "port": 1}, "serializers": ["json.batched", "cbor"]}
    loaded = load(save(worker(transports=[item])))
    assert loaded.config.transports[0].model_dump()["serializers"] == ("cbor",)
    assert [item.place for item in loaded.warnings if "skipped" in item.expected] == ["transports[0].serializers[0]"]


def test_a_serializer_stands_for_its_batched_subprotocol_too() -> None:
    assert subprotocols(("cbor", "json.batched", "flatbuffers")) == (
        "cbor.batched",
        "cbor",
        "json.batched",
        "flatbuffers",
    )
    assert subprotocols(("json.batched", "json")) == ("json.batched", "json")


def test_compression(save: Any) -> None:
    deflate = {
        "request_no_context_takeover": True,
        "request_max_window_bits": 0,
        "no_context_takeover": True,
        "max_window_bits": 9,
        "memory_level": 1,
    }
    testee = {"type": "websocket.testee", "endpoint": {"type": "tcp", "port": 9001}}
    items = [transport(options={"compression": {"deflate": deflate}}), testee | {"options": {"compression": {}}}]
    loaded = load(save(worker(transports=items)))
    assert not [item for item in loaded.warnings if item.place.startswith("transports")]
    first, second = (item.options.model_dump()["compression"] for item in loaded.config.transports)
    assert (first, second) == ({"deflate": deflate}, {"deflate": None})
    loaded = load(save(worker(transports=[transport(options={"compression": {"deflate": {}}})])))
    assert loaded.config.transports[0].options.model_dump()["compression"]["deflate"] == {
        "request_no_context_takeover": False,
        "request_max_window_bits": 0,
        "no_context_takeover": False,
        "max_window_bits": 15,
        "memory_level": 8,
    }


def test_no_timeout_and_none_given_differ(save: Any) -> None:
    first = transport(options={"open_handshake_timeout": 0})
    second = transport(endpoint={"type": "tcp", "port": 8081})
    config = load(save(worker(transports=[first, second]))).config
    values = [item.options.open_handshake_timeout for item in config.transports if isinstance(item, WebSocketTransport)]
    assert values == [0, None]


def test_portrange_goes_before_port(findings: Any) -> None:
    found = findings(worker(transports=[transport(endpoint={"type": "tcp", "port": 1, "portrange": [8000, 8010]})]))
    assert found["transports[0].endpoint.port"].severity == "warning"


def test_what_has_no_effect_is_said(findings: Any) -> None:
    item = transport(debug=True, options={"flash_policy": "x"})
    found = findings(worker(transports=[item], options={"title": "x"}, manhole={}))
    places = ("debug", "options.flash_policy")
    for place in (*(f"transports[0].{name}" for name in places), "options", "manhole"):
        assert found[place].severity == "warning"


def test_testee_transport(save: Any) -> None:
    item = {"type": "websocket.testee", "id": "echo", "endpoint": {"type": "tcp", "port": 9001}, "options": {}}
    assert load(save(worker(transports=[item]))).config.transports[0].type == "websocket.testee"


# --- what is refused, and where ----------------------------------------------------------------------------------


def endpoint(**keys: Any) -> dict[str, Any]:
    """A worker with one transport whose endpoint has these keys."""
    return worker(transports=[transport(endpoint={"type": "tcp", "port": 8080, **keys})])


def options(**keys: Any) -> dict[str, Any]:
    """A worker with one WebSocket transport with these options."""
    return worker(transports=[transport(options=keys)])


def deflate(**keys: Any) -> dict[str, Any]:
    """A worker with one WebSocket transport with these settings of permessage-deflate."""
    return options(compression={"deflate": keys})


def limits(**keys: Any) -> dict[str, Any]:
    """A worker with one WebSocket transport with these limits."""
    return worker(transports=[transport(limits=keys)])


def rawsocket(**keys: Any) -> dict[str, Any]:
    """A worker with one RawSocket transport with these keys."""
    return worker(transports=[{"type": "rawsocket", "endpoint": {"type": "tcp", "port": 1}, **keys}])


def universal(**keys: Any) -> dict[str, Any]:
    """A worker with one universal transport with these keys."""
    return worker(transports=[{"type": "universal", "endpoint": {"type": "tcp", "port": 1}, **keys}])


def backend(item: dict[str, Any]) -> dict[str, Any]:
    """A worker with this connection."""
    return worker(connections={"router1": item})


TCP = {"type": "tcp", "host": "127.0.0.1", "port": 9000}

DEFLATE = "transports[0].options.compression.deflate"

REFUSED = [
    (endpoint(port=70000), "transports[0].endpoint.port", "70000", "integer from 0 to 65535"),
    (endpoint(port="8080"), "transports[0].endpoint.port", '"8080"', "$NAME"),
    (endpoint(port="$NO_SUCH_NAME"), "transports[0].endpoint.port", '"$NO_SUCH_NAME"', "NO_SUCH_NAME is not set"),
    (endpoint(port=True), "transports[0].endpoint.port", "true", "integer"),
    (endpoint(port=None), "transports[0].endpoint.port", "", "required key is missing"),
    (endpoint(portrange=[9, 3]), "transports[0].endpoint.portrange", "[..]", "first <= last"),
    (endpoint(portrange=[9]), "transports[0].endpoint.portrange", "[..]", "[first, last]"),
    (endpoint(portrange=[9, "x"]), "transports[0].endpoint.portrange[1]", '"x"', "$NAME"),
    (endpoint(version=5), "transports[0].endpoint.version", "5", "4 or 6"),
    (endpoint(backlog=0), "transports[0].endpoint.backlog", "0", "from 1 to 65535"),
    (endpoint(user_timeout=70000), "transports[0].endpoint.user_timeout", "70000", "from 0 to 65535 (ms)"),
    (endpoint(shared="yes"), "transports[0].endpoint.shared", '"yes"', "true or false"),
    (endpoint(tls={"key": "k.pem"}), "transports[0].endpoint.tls.certificate", "", "required key is missing"),
    (endpoint(proxy_protocol=["10.0.0.1/8"]), "transports[0].endpoint.proxy_protocol[0]", None, "an IP address"),
    (endpoint(type="unix", path="x", mode="9"), "transports[0].endpoint.mode", '"9"', "in octal"),
    (endpoint(type="unix"), "transports[0].endpoint.path", "", "required key is missing"),
    (endpoint(type="unix", path="x" * 200), "transports[0].endpoint.path", None, "at most 107 octets"),
    (endpoint(type="onion"), "transports[0].endpoint.private_key_file", "", "required key is missing"),
    (endpoint(type="twisted", server_string="x"), "transports[0].endpoint.server_string", '"x"', "a server string"),
    (endpoint(type="tor"), "transports[0].endpoint.type", '"tor"', "not supported by this version"),
    (options(max_frame_size=-1), "transports[0].options.max_frame_size", "-1", "from 0 to 67108864"),
    (options(max_message_size=2**27), "transports[0].options.max_message_size", None, "from 0 to 67108864"),
    (options(auto_ping_size=126), "transports[0].options.auto_ping_size", "126", "from 12 to 125"),
    (options(auto_ping_interval=999), "transports[0].options.auto_ping_interval", "999", "or 0 for off"),
    (options(enable_rfc6455=False), "transports[0].options.enable_rfc6455", "false", "expected true"),
    (options(validate_utf8=1), "transports[0].options.validate_utf8", "1", "true or false"),
    (options(allowed_origins="*"), "transports[0].options.allowed_origins", '"*"', "a list"),
    (worker(transports=[transport(cookie={"name": "Id"})]), "transports[0].cookie.name", '"Id"', "lower-case letter"),
    (worker(transports=[transport(cookie={"name": "path"})]), "transports[0].cookie.name", '"path"', "no attribute of"),
    (options(compression=True), "transports[0].options.compression", "true", "a mapping"),
    (options(compression={"snappy": {}}), "transports[0].options.compression.snappy", "{}", "expected one of deflate"),
    (options(compression={"deflate": []}), "transports[0].options.compression.deflate", "[]", "a mapping"),
    (deflate(level=9), f"{DEFLATE}.level", "9", "unknown key, expected one of request_no_context_takeover, "),
    (deflate(no_context_takeover=1), f"{DEFLATE}.no_context_takeover", "1", "true or false"),
    (deflate(max_window_bits=8), f"{DEFLATE}.max_window_bits", "8", "from 9 to 15 (bits)"),
    (deflate(max_window_bits=0), f"{DEFLATE}.max_window_bits", "0", "from 9 to 15 (bits)"),
    (deflate(request_max_window_bits=16), f"{DEFLATE}.request_max_window_bits", "16", "or 0 for no request"),
    (deflate(request_max_window_bits=8), f"{DEFLATE}.request_max_window_bits", "8", "from 9 to 15"),
    (deflate(memory_level=0), f"{DEFLATE}.memory_level", "0", "from 1 to 9"),
    (deflate(memory_level=10), f"{DEFLATE}.memory_level", "10", "from 1 to 9"),
    (limits(compression_memory=-1), "transports[0].limits.compression_memory", "-1", "(octets)"),
    (limits(low_water=300_000), "transports[0].limits.low_water", "300000", "less than high_water"),
    (limits(hello_timeout=0), "transports[0].limits.hello_timeout", "0", "(ms)"),
    (rawsocket(options={"max_message_size": 100}), "transports[0].options.max_message_size", "100", "from 512"),
    (rawsocket(max_connections=0), "transports[0].max_connections", "0", "integer from 1"),
    (rawsocket(id="Front"), "transports[0].id", '"Front"', "lower-case letter"),
    (rawsocket(serializers=["cbr"]), "transports[0].serializers[0]", '"cbr"', "one of json, msgpack, cbor"),
    (rawsocket(serializers=["json.batched"]), "transports[0].serializers", "[..]", "at least one of"),
    (
        rawsocket(auth={"wampcra": {"type": "static"}}),
        "transports[0].auth.wampcra.users",
        None,
        "required key is missing",
    ),
    (
        rawsocket(auth={"anonymous": {"type": "function"}}),
        "transports[0].auth.anonymous.type",
        None,
        "static or dynamic",
    ),
    (rawsocket(auth={"anonymous": {}}), "transports[0].auth.anonymous.type", "", "required key is missing"),
    (worker(transports=[{"type": "mqtt", "endpoint": TCP}]), "transports[0].options", "", "required key is missing"),
    (worker(transports=[{"type": "flashpolicy"}]), "transports[0].type", '"flashpolicy"', "not supported"),
    (worker(transports=[{"type": "stream.testee"}]), "transports[0].type", '"stream.testee"', "not supported"),
    (worker(transports=[{"type": "web", "endpoint": TCP}]), "transports[0].paths", "", "required key is missing"),
    (universal(mqtt={"options": {}}), "transports[0].mqtt.options.realm", "", "required key is missing"),
    (universal(web={"options": {}}), "transports[0].web.paths", "", "required key is missing"),
    (universal(websocket={"a/b": {}}), 'transports[0].websocket["a/b"]', None, "first component"),
    (
        universal(websocket={"ws": {"endpoint": TCP}}),
        "transports[0].websocket.ws.endpoint",
        "{..}",
        "the whole transport has it",
    ),
    (
        universal(rawsocket={"max_connections": 5}),
        "transports[0].rawsocket.max_connections",
        "5",
        "the whole transport has it",
    ),
    (universal(websocket={"ws": {"type": "web"}}), "transports[0].websocket.ws.type", '"web"', "'websocket'"),
    (worker(transports=[{"type": "websock"}]), "transports[0].type", '"websock"', 'did you mean "websocket"?'),
    (worker(transports=[{"type": "websocket"}]), "transports[0].endpoint", "", "required key is missing"),
    (worker(transports=["x"]), "transports[0]", '"x"', "a mapping"),
    (worker(transports={}), "transports", "{}", "a list"),
    (worker(transports=[transport(url="http://x")]), "transports[0].url", '"http://x"', "ws://host:port/path"),
    (worker(id="1"), "id", '"1"', "3 to 64"),
    (worker(shutdown_timeout=0), "shutdown_timeout", "0", "(ms)"),
    (worker(routes={"realm1": {"anonymous": 3}}), "routes.realm1.anonymous", "3", "connection ID"),
    (worker(routes={"com.example": {"a": "ruter1"}}), 'routes["com.example"].a', '"ruter1"', 'did you mean "router1"?'),
    (worker(routes={"r": {"a": ["router1", "x"]}}), "routes.r.a[1]", '"x"', "one of the connections (router1)"),
    (backend({}), "connections.router1.transport", "", "required key is missing"),
    (backend({"transport": {"type": "tcp"}}), "connections.router1.transport.type", '"tcp"', "websocket or rawsocket"),
    (backend({"transport": {}}), "connections.router1.transport.url", "", "ws://host:port/path"),
    (backend({"transport": {"url": "ftp://a"}}), "connections.router1.transport.url", '"ftp://a"', "ws://"),
    (
        backend({"transport": {"type": "rawsocket", "endpoint": {**TCP, "tls": 7}}, "auth": {"anonymous": {}}}),
        "connections.router1.transport.endpoint.tls",
        "7",
        "expected a mapping",
    ),
    (
        backend({"transport": {"type": "rawsocket", "endpoint": TCP}}),
        "connections.router1.auth",
        "",
        "expected an endpoint of type unix, auth: {cryptosign-proxy: {}} ",
    ),
    (backend(connection(auth={})), "connections.router1.auth", "{}", "anonymous-proxy"),
    (
        backend(connection(auth={"passthrough": {}, "ticket": {"authid": "joe", "ticket": "s3"}})),
        "connections.router1.auth.passthrough",
        "{}",
        "nothing beside it (got ticket)",
    ),
    (
        backend(
            connection(auth={"ticket": {"authid": "joe", "ticket": "s3"}, "scram": {"authid": "x", "password": "y"}})
        ),
        "connections.router1.auth",
        None,
        "the same authid in all of scram, ticket",
    ),
    (backend(connection(auth={"ticket": {"authid": "joe"}})), "connections.router1.auth.ticket.ticket", "", "missing"),
    (
        backend(connection(auth={"cryptosign": {"privkey": "s3"}})),
        "connections.router1.auth.cryptosign.privkey",
        None,
        "64 hexadecimal digits",
    ),
    (
        backend(connection(auth={"credentials": {"realm1": {"user": {}}}})),
        "connections.router1.auth.credentials.realm1.user",
        "{}",
        "expected one of anonymous, ticket",
    ),
    (backend(connection(permit={"roles": []})), "connections.router1.permit.roles", "[]", "at least one pattern"),
    (backend(connection(permit={"roles": ["user"]})), "routes.realm1.anonymous", None, "whose permit allows"),
    (backend(connection(timeouts={"join": -1})), "connections.router1.timeouts.join", "-1", "(ms)"),
    (
        backend({"transport": {"url": "ws://a/", "headers": {"Host": "b"}}, "auth": {"anonymous": {}}}),
        "connections.router1.transport.headers.Host",
        "***",
        "belongs to the WebSocket handshake",
    ),
    (
        backend({"transport": {"url": "ws://a/", "headers": {"X-Key": " b"}}, "auth": {"anonymous": {}}}),
        "connections.router1.transport.headers.X-Key",
        "***",
        "printable ASCII",
    ),
    (
        backend({"transport": {"type": "rawsocket", "endpoint": TCP, "options": {"max_message_size": 9}}}),
        "connections.router1.transport.options.max_message_size",
        "9",
        "from 512 to 16777216",
    ),
]


@pytest.mark.parametrize(
    ("data", "place", "value", "expected"), REFUSED, ids=[f"{case[1]}-{case[3]}" for case in REFUSED]
)
def test_refused_with_place_value_and_expectation(
    findings: Any, data: Any, place: str, value: str | None, expected: str
) -> None:
    found = errors(findings(data))
    assert place in found
    assert expected in found[place].expected
    if value is not None:
        assert found[place].value == value


def test_all_errors_are_reported_at_once(findings: Any) -> None:
    items = [transport(endpoint={"type": "tcp", "prt": 1}), transport(serializers=["x"]), {"type": "flashpolicy"}]
    found = findings(worker(transports=items, routes={"realm1": {"anonymous": "other"}}))
    assert set(errors(found)) == {
        "transports[0].endpoint.port",
        "transports[1].serializers[0]",
        "transports[2].type",
        "routes.realm1.anonymous",
    }
    assert 'did you mean "port"?' in found["transports[0].endpoint.prt"].expected


def test_transport_ids_are_unique_with_the_default_ones(findings: Any) -> None:
    items = [transport(), rawsocket()["transports"][0] | {"id": "transport000"}]
    assert "transports[0]" in errors(findings(worker(transports=items)))["transports[1].id"].expected


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [
        ({"type": "tcp", "port": 80}, {"type": "tcp", "port": 80}, "port"),
        ({"type": "tcp", "port": 80}, {"type": "tcp", "port": 80, "interface": "127.0.0.1"}, "port"),
        ({"type": "tcp", "port": 80, "shared": True}, {"type": "tcp", "port": 80}, "port"),
        ({"type": "unix", "path": "a/../x"}, {"type": "unix", "path": "x"}, "path"),
    ],
)
def test_one_address_for_two_transports(findings: Any, first: Any, second: Any, key: str) -> None:
    found = errors(findings(worker(transports=[transport(endpoint=first), transport(endpoint=second)])))
    assert list(found) == [f"transports[1].endpoint.{key}"]


def test_one_path_for_a_transport_and_the_management_api(findings: Any) -> None:
    front = transport(endpoint={"type": "unix", "path": "front.sock"})
    found = errors(findings(worker(transports=[front], management={"path": "front.sock"})))
    assert "management has it" in found["transports[0].endpoint.path"].expected
    assert not errors(findings(worker(transports=[front], management={"path": "other.sock"})))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"type": "tcp", "port": 80, "shared": True}, {"type": "tcp", "port": 80, "shared": True}),
        ({"type": "tcp", "port": 80, "interface": "127.0.0.2"}, {"type": "tcp", "port": 80, "interface": "127.0.0.1"}),
        ({"type": "tcp", "port": 80, "version": 6}, {"type": "tcp", "port": 80}),
        ({"type": "tcp", "port": 0}, {"type": "tcp", "port": 0}),
    ],
)
def test_addresses_that_go_together(findings: Any, first: Any, second: Any) -> None:
    assert not findings(
        worker(transports=[transport(endpoint=first), transport(endpoint=second)], connections={}, routes={})
    )


def test_routes_that_nobody_can_use_are_warnings(findings: Any, save: Any) -> None:
    routes = {"empty": {}, "realm1": {"a": [], "*": "router1"}}
    found = findings(worker(routes=routes))
    assert not errors(found)
    assert {"routes.empty", "routes.realm1.a", 'routes.realm1["*"]'} <= set(found)
    assert load(save(worker(routes=routes))).config.routes["realm1"] == {"*": ("router1",)}


def test_auth_without_a_method_lets_nobody_in(findings: Any) -> None:
    found = findings(worker(transports=[transport(auth={})]))
    assert "nobody can log in" in found["transports[0].auth"].expected


def test_keys_given_twice(findings: Any) -> None:
    text = json.dumps(worker()).replace('"routes"', '"connections": {}, "routes"')
    assert "more than once" in errors(findings(text))["connections"].expected
    found = findings("type: proxy\nconnections: {one: {}, one: {}}\n", "config.yaml")
    assert "more than once" in errors(found)["connections.one"].expected


def test_yaml_keys_that_are_no_strings(findings: Any) -> None:
    found = findings("type: proxy\nroutes: {1.5: {}, 2: {}, ~: {}}\n", "config.yaml")
    assert {place for place in found if place.startswith("routes")} == {'routes["1.5"]', "routes[2]", "routes.None"}


def test_yaml_merge_keys_and_aliases(save: Any) -> None:
    text = """
type: proxy
connections:
  one: &base
    transport: {type: rawsocket, endpoint: {type: unix, path: one.sock}}
  two: {<<: *base, timeouts: {dial: 5}}
transports: []
"""
    config = load(save(text, "config.yaml")).config
    assert config.connections["two"].timeouts.dial == 5
    assert config.connections["two"].transport == config.connections["one"].transport


def test_yaml_that_contains_itself(findings: Any) -> None:
    found = findings("type: proxy\nself: &a [*a]\n", "config.yaml")
    assert "unknown key" in found["self"].expected


def models(model: type[BaseModel]) -> set[type[BaseModel]]:
    """A model and all that its fields hold."""
    found = {model}
    pending: list[Any] = [field.annotation for field in model.model_fields.values()]
    while pending:
        annotation = pending.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in found:
            found.add(annotation)
            pending += [field.annotation for field in annotation.model_fields.values()]
        pending += get_args(annotation)
    return found


def test_every_key_is_documented() -> None:
    names = ("configuration.md", "transports.md", "web-services.md", "mqtt.md")
    text = "".join(path.read_text() for name in names if (path := ROOT / "docs" / name).exists())
    for model in models(WorkerConfig):
        for name, field in model.model_fields.items():
            choices = field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else [name]
            names = {field.alias or name, *map(str, choices)}
            assert any(f"`{item}`" in text for item in names), f"{model.__name__}.{name}"


# --- secrets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        worker(transports=[transport(auth={"ticket": {"principals": {"joe": {"ticket": "GEHEIM"}}}})]),
        worker(transports=[transport(auth={"wampcra": {"secret": "GEHEIM"}})], secret="GEHEIM"),
        backend({"transport": {"url": "ws://user:GEHEIM@host/"}, "auth": {"anonymous": {}}}),
        backend({"transport": {"url": "ws://host/", "headers": {"X-Thing": "GEHEIM\n"}}}),
        backend(connection(auth={"ticket": {"ticket": "GEHEIM"}}, password="GEHEIM", api_key="GEHEIM")),
    ],
)
def test_secrets_are_never_shown(save: Any, data: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load(save(data))
    assert "GEHEIM" not in str(caught.value)
    assert all("GEHEIM" not in str(item.to_dict()) for item in caught.value.findings)


def test_syntax_errors_do_not_quote_the_file(save: Any) -> None:
    for text, name in (('{"ticket": "GEHEIM" x}', "c.json"), ('ticket: "GEHEIM" x', "c.yaml")):
        found = check(save(text, name))
        assert "GEHEIM" not in str(found[0])
        assert found[0].place.startswith("line 1")


# --- files and workers -------------------------------------------------------------------------------------------


def node(*workers: Any) -> dict[str, Any]:
    """A node configuration."""
    return {"version": 2, "controller": {}, "workers": list(workers)}


def test_the_proxy_worker_of_a_node_is_found(save: Any) -> None:
    assert load(save(node({"type": "router"}, worker(id="front")))).config.id == "front"


def test_workers_without_id_count_as_the_node_counts_them(save: Any) -> None:
    path = save(node({"type": "router"}, {"type": "container", "id": "x"}, worker(), worker(id="front")))
    assert load(path, "worker002").config.id == "worker002"


def test_places_in_a_node_configuration_begin_at_the_node(findings: Any) -> None:
    found = errors(findings(node({"type": "router"}, endpoint(port=-1))))
    assert list(found) == ["workers[1].transports[0].endpoint.port"]


def test_a_disabled_worker_is_left_out_unless_it_is_the_only_one(save: Any) -> None:
    off = worker(id="off", options={"disabled": True})
    assert load(save(node(off, worker(id="front")))).config.id == "front"
    assert load(save(node(off))).config.id == "off"


@pytest.mark.parametrize(
    ("data", "worker_id", "place", "expected"),
    [
        (node({"type": "router"}), None, "workers", "a worker of type proxy"),
        (node(worker(id="one"), worker(id="two")), None, "workers", "name one of one, two with --worker"),
        (node(worker(id="front")), "fornt", "workers", 'did you mean "front"?'),
        ({"version": 2}, None, "workers", "required key is missing"),
        ({"workers": {}}, None, "workers", "a list of mappings"),
        ({"type": "router"}, None, "type", 'expected "proxy"'),
        ({"connections": {}}, None, "type", "required key is missing"),
        (worker(id="front"), "other", "id", 'expected the worker "other"'),
        ([], None, "", "a mapping"),
    ],
)
def test_no_worker_to_take(findings: Any, data: Any, worker_id: str | None, place: str, expected: str) -> None:
    found = errors(findings(data, worker_id=worker_id))
    assert list(found) == [place]
    assert expected in found[place].expected


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("{", "c.json", "expected JSON"),
        ("[" * 100_000, "c.json", "expected JSON"),
        ("a: [", "c.yaml", "expected YAML"),
        ("", "c.yaml", "expected a mapping"),
    ],
)
def test_unreadable_text(findings: Any, text: str, name: str, expected: str) -> None:
    (found,) = findings(text, name).values()
    assert expected in found.expected


def test_unreadable_files(tmp_path: Path) -> None:
    (missing,) = check(tmp_path / "none.json")
    assert "No such file" in missing.expected
    binary = tmp_path / "binary.json"
    binary.write_bytes(b'{"a": "\xff"}')
    assert "UTF-8" in check(binary)[0].expected


def test_error_is_an_invalid_configuration(save: Any) -> None:
    with pytest.raises(InvalidConfiguration) as caught:
        load(save(endpoint(port=-1)))
    assert caught.value.uri == "crossbar.error.invalid_configuration"
    assert "transports[0].endpoint.port: -1" in caught.value.message


def test_models_are_immutable(save: Any) -> None:
    config = load(save(rawsocket())).config
    assert isinstance(config.transports[0], RawSocketTransport)
    with pytest.raises(ValueError, match="frozen"):
        config.transports[0].id = "x"


# --- URLs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("ws://host", (False, "host", 80, "", "/")),
        ("wss://host/ws?a=b", (True, "host", 443, "", "/ws?a=b")),
        ("ws://[::1]:8080/", (False, "::1", 8080, "", "/")),
        ("ws://unix:/tmp/x.sock", (False, "unix", 0, "/tmp/x.sock", "/")),
        ("rs://host:81", (False, "host", 81, "", "/")),
        ("rs://unix:/tmp/x.sock", (False, "unix", 0, "/tmp/x.sock", "/")),
    ],
)
def test_url(url: str, parts: tuple[Any, ...]) -> None:
    assert parse_rawsocket_url(url) == parts


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:80",
        "http://host",
        "ws://",
        "ws://h:99999",
        "ws://h:0",
        "ws://h/#x",
        "ws://u@h",
        "ws://h /",
        "rs://h",
        "ws://h/ü",
        "ws://h/?ü",
        "ws://h\u2028x/",
    ],
)
def test_wrong_url(url: str) -> None:
    with pytest.raises(ValueError, match="expected a URL"):
        parse_websocket_url(url)
