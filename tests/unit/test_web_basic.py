"""The services that answer by themselves: json, redirect, none, path, resource, nodeinfo, websocket."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from proxy.errors import CannotStart, FeatureUnavailable, InvalidConfiguration, ProxyError
from proxy.web import services
from proxy.web.nodeinfo_page import _count, _duration, _size
from support.web import Web

JSON = {"type": "json", "value": {"b": [1, "ü"], "a": None}}


# --- json ---


def test_json_is_sent_as_it_was_given() -> None:
    answer = Web({"/": JSON}).ask("/")
    assert answer.text == '{"b":[1,"ü"],"a":null}'
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["access-control-allow-origin"] == "*"


def test_options_of_json_have_an_effect() -> None:
    item = {**JSON, "options": {"prettify": True, "sort_keys": True, "discourage_caching": True}}
    answer = Web({"/": item}).ask("/")
    assert answer.text == '{\n   "a": null,\n   "b": [\n      1,\n      "ü"\n   ]\n}\n'
    assert answer.headers["cache-control"].startswith("no-store")
    answer = Web({"/": {**JSON, "options": {"allow_cross_origin": False}}}).ask("/", origin="https://a")
    assert "access-control-allow-origin" not in answer.headers


def test_json_that_a_client_has_is_not_sent_again() -> None:
    web = Web({"/": JSON})
    tag = web.ask("/").headers["etag"]
    assert web.ask("/", if_none_match=tag).status == 304
    assert web.ask("/", if_none_match='"other"').status == 200


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()])
def test_what_is_no_json_is_found_at_the_start(value: Any) -> None:
    with pytest.raises(InvalidConfiguration, match=r'web service "x" \(json\).*expected what JSON can express'):
        Web({"x": {"type": "json", "value": value}})


# --- paths ---


@pytest.mark.parametrize("root", ["path", "plain"])
def test_a_path_at_the_root_has_the_paths_below_it(root: str) -> None:
    """Also for what is looked up before Twisted sees a request: who takes handshakes, and whether forms are wanted."""
    paths = {"/": {"type": "none"}, "go": {"type": "redirect", "url": "/"}, "a": {"type": "path", "paths": {"b": JSON}}}
    branch = Web({"/": {"type": "path", "paths": paths}} if root == "path" else paths).site.branch
    for path, name in (("", "none"), ("x", "none"), ("go", "redirect"), ("go/x", "redirect"), ("a/b", "json")):
        service: Any = branch.find(path.split("/"))
        assert service.config.type == name
    assert branch.find(["a", "x"]) is None


def paths_web() -> Web:
    """Services within services."""
    return Web(
        {
            "/": {"type": "json", "value": "root"},
            "a": {
                "type": "path",
                "paths": {
                    "/": {"type": "json", "value": "a"},
                    "b": {"type": "path", "paths": {"c": {"type": "json", "value": "a/b/c"}}},
                },
            },
            "go": {"type": "redirect", "url": "https://example.com/x?y=1&z=2"},
            "no": {"type": "none"},
        }
    )


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/", 200, '"root"'),
        ("/a", 200, '"a"'),
        ("/a/", 200, '"a"'),
        ("/a/x", 404, ""),
        ("/a/b", 404, ""),
        ("/a/b/c", 200, '"a/b/c"'),
        ("/a/b/c/", 200, '"a/b/c"'),
        ("/%61/b/c", 200, '"a/b/c"'),
        ("/a/b/d", 404, ""),
        ("/no", 404, ""),
        ("/no/x", 404, ""),
        ("/b", 404, ""),
        ("//a", 404, ""),
        ("/go", 302, ""),
        ("/go/there", 302, ""),
    ],
)
def test_the_service_is_found_by_its_path(path: str, status: int, text: str) -> None:
    answer = paths_web().ask(path)
    assert (answer.status, answer.text if text else "") == (status, text)


def test_a_redirection_tells_where_to() -> None:
    answer = paths_web().ask("/go")
    assert answer.headers["location"] == "https://example.com/x?y=1&z=2"
    assert 'href="https://example.com/x?y=1&amp;z=2"' in answer.text


def test_a_site_without_a_root_answers() -> None:
    web = Web({"a": JSON})
    assert (web.ask("/").status, web.ask("/a").status, web.ask("/b").status) == (404, 200, 404)


# --- resource ---


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no_such_module_x.Thing", "ModuleNotFoundError"),
        ("proxy.errors.Nope", "AttributeError"),
        ("nodots", "ValueError"),
        ("types.SimpleNamespace", "which is no resource|TypeError"),
        ("builtins.int", "TypeError|which is no resource"),
    ],
)
def test_a_class_that_cannot_be_used_is_found_at_the_start(name: str, text: str) -> None:
    with pytest.raises(ProxyError, match=text) as caught:
        Web({"x": {"type": "resource", "classname": name}})
    assert caught.value.uri == "crossbar.error.class_import_failed"


# --- start and stop ---


def test_services_that_were_started_are_stopped_when_a_later_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.web.none import NoneService

    stopped: list[str] = []
    monkeypatch.setattr(NoneService, "stop", lambda self: stopped.append(self.path))
    bad = {"type": "static", "directory": "/nowhere/at/all"}
    with pytest.raises(InvalidConfiguration, match='"z/b"'):
        Web({"a": {"type": "none"}, "z": {"type": "path", "paths": {"a": {"type": "none"}, "b": bad}}})
    assert sorted(stopped) == ["a", "z/a"]


@pytest.mark.parametrize("path", ["late", "p/late"])
def test_a_service_whose_start_is_under_way_does_not_outlive_what_it_is_on(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    from proxy.web.none import NoneService

    ready: Deferred[None] = Deferred()
    stopped: list[str] = []
    web = Web({"p": {"type": "path", "paths": {"x": JSON}}})
    monkeypatch.setattr(NoneService, "start", lambda self: ready)
    monkeypatch.setattr(NoneService, "stop", lambda self: stopped.append(self.path))
    outcome: list[Any] = []
    over: list[Any] = []
    web.site.start_service(path, {"type": "none"}).addBoth(outcome.append)
    ending: Deferred[Any] = web.site.stop() if path == "late" else web.site.stop_service("p")
    ending.addCallback(over.append)
    assert not over, "it has not let go of everything"
    ready.callback(None)
    assert stopped == [path]
    assert outcome[0].check(CannotStart)
    assert over
    assert not web.site.branch.services


def test_a_service_that_fails_to_start_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from proxy.web.none import NoneService

    ready: Deferred[None] = Deferred()
    web = Web({})
    monkeypatch.setattr(NoneService, "start", lambda self: ready)
    outcome: list[Any] = []
    over: list[Any] = []
    web.site.start_service("late", {"type": "none"}).addBoth(outcome.append)
    web.site.stop().addCallback(over.append)
    ready.errback(CannotStart("no disk"))
    assert "no disk" in str(outcome[0].value)
    assert over


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(services.SERVICES, "none", "no_such_module_y:Service")
    with pytest.raises(FeatureUnavailable, match="web services of type none need no_such_module_y: not installed"):
        Web({"/": {"type": "none"}})


def test_a_bug_in_a_start_is_logged_and_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from proxy.web.none import NoneService

    monkeypatch.setattr(NoneService, "start", lambda self: {}["hush"])
    with pytest.raises(CannotStart, match=r'web service "a" \(none\): internal error'):
        Web({"a": {"type": "none"}})
    assert "KeyError" in caplog.text


# --- nodeinfo ---


def info_web() -> Web:
    """A site with a page about a worker that has much to tell."""
    web = Web({"/": {"type": "nodeinfo"}})
    transport = {"state": 3, "address": "ws://0.0.0.0:80", "connections": 12_345, "sessions": 1, "joined": 9}
    connection = {"state": 3, "sessions": 1, "joined": 9, "is_down": False, "is_draining": False}
    stats = {
        "worker": "worker<1>",
        "uptime": 90_061.5,
        "sessions": 1,
        "transports": {"public": transport},
        "connections": {
            "up": connection,
            "gone": {**connection, "is_down": True},
            "leaving": {**connection, "is_draining": True},
        },
        "threads": [{"messages_to_back": 1_500_000, "octets_to_front": 1 << 30, "connections": 1}],
    }
    route = SimpleNamespace(marshal=lambda: {"config": {"anonymous": "up", "<role>": "up"}})
    controller: Any = web.controller
    controller.get_proxy_stats = lambda: stats
    controller.started = lambda: "2026-01-01T00:00:00.000Z"
    controller.node_id = "node1"
    controller.transports = {"public": SimpleNamespace(model=SimpleNamespace(type="websocket"))}
    controller.routes = SimpleNamespace(realms=lambda: ["realm1"], of_realm=lambda _: [route], live=lambda _: 1)
    return web


def test_the_page_tells_what_runs() -> None:
    answer = info_web().ask("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for text in ("worker&lt;1&gt;", "node1", "realm1", "&lt;role&gt;", "unreachable", "draining", "1.50 <i>M</i>"):
        assert text in answer.text, text
    assert "<role>" not in answer.text
    assert "1 <i>d</i> 1 <i>h</i>" in answer.text


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    answer = info_web().ask("/")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    for word in ("<script", "src=", "@import", "url("):
        assert word not in answer.text


def test_programs_get_json() -> None:
    web = info_web()
    for answer in (web.ask("/?format=json"), web.ask("/", accept="application/json")):
        found = json.loads(answer.text)
        assert found["worker"] == "worker<1>"
        assert [item["state"] for item in found["routers"]] == ["unreachable", "draining", "started"]
    assert web.ask("/", accept="text/html,application/json").text.startswith("<!DOCTYPE html>")


def test_the_page_comes_anew_if_that_is_wanted() -> None:
    web = info_web()
    assert "refresh" not in web.ask("/").headers
    assert web.ask("/?refresh=5").headers["refresh"] == "5"
    for odd in ("0", "x", "5,url=https://evil", "999999"):
        assert "refresh" not in web.ask(f"/?refresh={odd}").headers


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (9999, "9999"), (10_000, "10.0 <i>k</i>"), (999_999, "999 <i>k</i>"), (10**16, "10000 <i>T</i>")],
)
def test_counts_are_short(number: int, text: str) -> None:
    assert _count(number) == text


def test_sizes_and_times_are_short() -> None:
    assert [_size(octets) for octets in (0, 1023, 1024, 10_240, (1 << 20) - 1)] == [
        "0 <i>B</i>",
        "1023 <i>B</i>",
        "1.00 <i>KiB</i>",
        "10.0 <i>KiB</i>",
        "1023 <i>KiB</i>",
    ]
    assert [_duration(seconds) for seconds in (0.9, 61, 3600)] == [
        "0 <i>s</i>",
        "1 <i>min</i> 1 <i>s</i>",
        "1 <i>h</i>",
    ]
