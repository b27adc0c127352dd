"""What every service of a web transport has: bounds, deadlines, real addresses, header fields, errors, access log."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from twisted.web.error import UnsupportedMethod
from twisted.web.pages import notFound
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from proxy.config.networks import Forwarders
from proxy.peers import Peer, TlsInfo
from support.web import CLIENT, Answer, Web, parse

TLS = TlsInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", "example.com", "http/1.1", b"f" * 12, b"e" * 32, b"")
SECURE = Peer("2001:db8::7", 40002, tls=TLS)


class Probe(Resource):
    """Tells what it was asked, by the last part of the path."""

    isLeaf = True

    def __init__(self, extra: Any) -> None:
        super().__init__()
        self.waiting: list[Any] = []
        PROBES.append(self)

    def render_GET(self, request: Any) -> Any:
        what = request.postpath[-1] if request.postpath else b""
        if what == b"fail":
            raise RuntimeError("the <secret> reason")
        if what == b"wait":
            self.waiting.append(request)
            return NOT_DONE_YET
        if what == b"number":
            return 17
        return repr((request.getClientAddress().host, request.isSecure(), request.args, request.prePathURL())).encode()

    def render_POST(self, request: Any) -> bytes:
        return repr((request.content.read(), request.args)).encode()


@implementer(IResource)
class OnlyGet:
    """A resource that knows nothing of HEAD, and answers later."""

    isLeaf = True

    def __init__(self, extra: Any) -> None:
        self.is_late = bool(extra)

    def render(self, request: Any) -> Any:
        """Answer GET only."""
        if request.method != b"GET":
            raise UnsupportedMethod([b"GET"])
        if not self.is_late:
            return b"four"
        PROBES.append(request)
        return NOT_DONE_YET


PROBES: list[Any] = []


def probe_web(options: dict[str, Any] | None = None) -> Web:
    """A site whose root is a Probe."""
    PROBES.clear()
    return Web({"/": {"type": "resource", "classname": f"{__name__}.Probe"}}, options)


# --- bounds ---


def head(*lines: str) -> bytes:
    """A request's head."""
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (head("GET / HTTP/1.1"), 400),
        (head("GET / HTTP/1.1", "host: a", "host: b"), 400),
        (head("GET / HTTP/1.1", "host: a", "no colon"), 400),
        (head("GET / HTTP/1.1", "host: a", "content-length: x"), 400),
        (head("GET / HTTP/1.1", "host: a", "content-length: 1", "content-length: 1"), 400),
        (head("POST / HTTP/1.1", "host: a", "content-length: 1", "transfer-encoding: chunked"), 400),
        (head("POST / HTTP/1.1", "host: a", "transfer-encoding: gzip"), 400),
        (head("POST / HTTP/1.1", "host: a", "transfer-encoding: chunked") + b"zz\r\n", 400),
        (head("GET / HTTP/1.1", "host: a", "x: " + "y" * 20_000), 431),
        (b"GET /" + b"x" * 20_000, 431),
        (head("GET / HTTP/1.1", "host: a", *(f"x{n}: y" * 3 for n in range(300))), 431),
        (head("GET / HTTP/1.1", "host: a", *("x" * 90 + f"{n}: y" for n in range(190))), 431),
        (head("POST / HTTP/1.1", "host: a", f"content-length: {1 << 30}", "expect: 100-continue"), 413),
        (head("POST / HTTP/1.1", "host: a", "content-length: " + "9" * 5000), 413),
        (head("POST / HTTP/1.1", "host: a", "content-length: " + "x" * 5000), 400),
        (head("CONNECT a:80 HTTP/1.1", "host: a"), 400),
        (head("GET x HTTP/1.1", "host: a"), 400),
    ],
)
def test_a_request_that_cannot_be_taken_is_answered_and_the_connection_ends(data: bytes, status: int) -> None:
    web = probe_web()
    channel, transport = web.connect()
    channel.dataReceived(data)
    answer = parse(transport.value())
    assert answer.status == status
    assert answer.headers["connection"] == "close"
    assert transport.is_half_closed
    transport.clear()
    channel.dataReceived(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n" * 3)
    assert transport.value() == b"", "a request behind one that was refused was answered"


def test_a_client_that_was_refused_is_cut_off_when_it_does_not_close() -> None:
    web = probe_web()
    channel, transport = web.connect()
    channel.dataReceived(b"nonsense\r\n\r\n")
    web.clock.advance(1.9)
    assert not transport.disconnected
    web.clock.advance(0.2)
    assert transport.disconnected


def test_a_chunked_body_is_cut_at_the_limit() -> None:
    web = probe_web({"max_body_size": 1000})
    channel, transport = web.connect()
    channel.dataReceived(head("POST / HTTP/1.1", "host: a", "transfer-encoding: chunked"))
    for _ in range(10):
        channel.dataReceived(b"64\r\n" + b"x" * 100 + b"\r\n")
    assert transport.value() == b""
    channel.dataReceived(b"1\r\nx\r\n0\r\n\r\n")
    assert parse(transport.value()).status == 413


def test_a_body_at_the_limit_is_taken() -> None:
    web = probe_web({"max_body_size": 1000})
    assert web.ask("/", "POST", b"x" * 1000).status == 200
    assert web.ask("/", "POST", b"x" * 1001).status == 413


# --- time ---


def test_an_idle_connection_is_closed() -> None:
    web = probe_web({"client_timeout": 7})
    channel, transport = web.connect()
    channel.dataReceived(head("GET / HTTP/1.1", "host: a"))
    transport.clear()
    web.clock.advance(6.9)
    assert not transport.disconnecting
    web.clock.advance(0.2)
    assert transport.disconnecting
    assert transport.value() == b""


def test_a_head_that_comes_octet_by_octet_gets_no_more_time() -> None:
    web = probe_web({"client_timeout": 10})
    channel, transport = web.connect()
    channel.dataReceived(b"GET / HTTP/1.1\r\n")
    for _ in range(11):
        web.clock.advance(1)
        channel.dataReceived(b"x: y\r\n")
    assert parse(transport.value()).status == 408


def test_nor_does_a_first_line_that_does() -> None:
    """The data plane has an eye on a connection's first head only."""
    web = probe_web({"client_timeout": 10})
    channel, transport = web.connect()
    channel.dataReceived(head("GET / HTTP/1.1", "host: a"))
    transport.clear()
    web.clock.advance(9)
    channel.dataReceived(b"G")
    for _ in range(9):
        web.clock.advance(1)
        channel.dataReceived(b"x")
    assert not transport.disconnecting
    web.clock.advance(1)
    assert transport.disconnecting


def test_a_body_may_take_as_long_as_it_comes_fast_enough() -> None:
    web = probe_web({"client_timeout": 10})
    channel, transport = web.connect()
    channel.dataReceived(head("POST / HTTP/1.1", "host: a", "content-length: 100000"))
    for _ in range(100):
        web.clock.advance(1.5)
        channel.dataReceived(b"x" * 1000)
    assert parse(transport.value()).status == 200


def test_a_body_that_trickles_is_refused() -> None:
    web = probe_web({"client_timeout": 10})
    channel, transport = web.connect()
    channel.dataReceived(head("POST / HTTP/1.1", "host: a", "content-length: 100000"))
    for _ in range(12):
        web.clock.advance(1)
        channel.dataReceived(b"x" * 10)
    assert parse(transport.value()).status == 408


def test_after_a_slow_body_the_next_request_has_all_its_time() -> None:
    web = probe_web({"client_timeout": 10})
    channel, transport = web.connect()
    channel.dataReceived(head("POST / HTTP/1.1", "host: a", "content-length: 2"))
    channel.dataReceived(b"x")
    web.clock.advance(9)
    channel.dataReceived(b"y")
    assert parse(transport.value()).status == 200
    web.clock.advance(9)
    assert not transport.disconnecting


def test_an_answer_may_take_its_time() -> None:
    web = probe_web({"client_timeout": 5})
    channel, transport = web.connect()
    channel.dataReceived(head("GET /wait HTTP/1.1", "host: a"))
    web.clock.advance(1000)
    PROBES[0].waiting[0].write(b"at last")
    PROBES[0].waiting[0].finish()
    assert parse(transport.value()).body == b"at last"


# --- connections ---


def test_requests_follow_one_another_on_a_connection() -> None:
    web = probe_web()
    channel, transport = web.connect()
    channel.dataReceived(head("GET /wait HTTP/1.1", "host: a") + head("GET /2 HTTP/1.1", "host: a"))
    assert transport.value() == b"", "the second request was answered before the first"
    waiting = PROBES[0].waiting[0]
    waiting.write(b"one")
    waiting.finish()
    assert transport.value().count(b"HTTP/1.1 200 OK") == 2
    assert not transport.disconnecting


def test_the_client_may_ask_to_close() -> None:
    web = probe_web()
    channel, transport = web.connect()
    channel.dataReceived(head("GET / HTTP/1.1", "host: a", "connection: close"))
    assert parse(transport.value()).headers["connection"] == "close"
    assert transport.disconnecting


def test_a_stop_waits_for_answers_that_are_under_way_but_not_for_long() -> None:
    web = probe_web()
    idle, busy, stuck = (web.connect() for _ in range(3))
    for channel, _ in (busy, stuck):
        channel.dataReceived(head("GET /wait HTTP/1.1", "host: a"))
    done: list[Any] = []
    web.site.stop().addCallback(done.append)
    assert idle[1].disconnecting
    assert not busy[1].disconnecting
    PROBES[0].waiting[0].finish()
    assert parse(busy[1].value()).headers["connection"] == "close"
    assert busy[1].disconnecting
    web.clock.advance(5.1)
    assert stuck[1].disconnected
    assert not done
    for channel, _ in (idle, busy, stuck):
        channel.connectionLost()
    assert done, "all connections are gone, and the stop is not done"


def test_a_stop_without_connections_is_done_at_once() -> None:
    done: list[Any] = []
    probe_web().site.stop().addCallback(done.append)
    assert done


# --- who asks ---


def told(answer: Answer) -> tuple[str, bool, Any, bytes]:
    """What the Probe says."""
    found: tuple[str, bool, Any, bytes] = eval(answer.text, {})
    return found


def test_a_service_sees_the_clients_address_and_whether_there_is_tls() -> None:
    web = probe_web()
    assert told(web.ask("/a?x=1&x=2")) == ("192.0.2.7", False, {b"x": [b"1", b"2"]}, b"http://example.com/")
    assert told(web.ask("/a", peer=SECURE))[:2] == ("2001:db8::7", True)
    assert told(web.ask("/a", peer=SECURE))[3].startswith(b"https://")


def test_a_listed_proxy_is_believed_and_nobody_else() -> None:
    web = probe_web()
    web.transport.model.endpoint.forwarded = Forwarders(networks=("192.0.2.0/24",))
    assert told(web.ask("/", x_forwarded_for="203.0.113.9"))[0] == "203.0.113.9"
    assert told(web.ask("/", x_forwarded_for="203.0.113.9", peer=SECURE))[0] == "2001:db8::7"


def test_headers_that_contradict_each_other_are_refused() -> None:
    web = probe_web()
    web.transport.model.endpoint.forwarded = Forwarders(networks=("192.0.2.0/24",))
    answer = web.ask("/", x_forwarded_for="203.0.113.9", forwarded="for=203.0.113.10")
    assert (answer.status, "contradict" in answer.text) == (400, True)


def test_each_request_of_a_connection_has_its_own_client() -> None:
    web = probe_web()
    web.transport.model.endpoint.forwarded = Forwarders(networks=("192.0.2.0/24",))
    channel, transport = web.connect()
    for client in ("203.0.113.9", "203.0.113.10"):
        transport.clear()
        channel.dataReceived(head("GET / HTTP/1.1", "host: a", f"x-forwarded-for: {client}"))
        assert told(parse(transport.value()))[0] == client


def test_an_absolute_target_is_taken() -> None:
    answer = parse(probe_web().send(head("GET http://example.com/a?x=1 HTTP/1.1", "host: example.com")))
    assert told(answer)[2] == {b"x": [b"1"]}


# --- forms ---


def test_a_form_is_taken_apart_for_a_resource_of_the_operators() -> None:
    form = {"content_type": "application/x-www-form-urlencoded"}
    body, args = eval(probe_web().ask("/", "POST", b"a=1&b=2", **form).text, {})
    assert (body, args) == (b"a=1&b=2", {b"a": [b"1"], b"b": [b"2"]})


def test_a_huge_form_is_left_to_the_resource() -> None:
    form = {"content_type": "application/x-www-form-urlencoded"}
    body, args = eval(probe_web().ask("/", "POST", b"a=1&" * 300_000, **form).text, {})
    assert (len(body), args) == (1_200_000, {})


# --- answers ---


def test_hsts_goes_out_over_tls_only() -> None:
    web = probe_web({"hsts": True, "hsts_max_age": 77})
    assert web.ask("/", peer=SECURE).headers["strict-transport-security"] == "max-age=77"
    assert "strict-transport-security" not in web.ask("/").headers
    assert "strict-transport-security" not in probe_web().ask("/", peer=SECURE).headers


def test_errors_have_hsts_too() -> None:
    web = Web({}, {"hsts": True})
    answer = web.ask("/nope", peer=SECURE)
    assert (answer.status, "strict-transport-security" in answer.headers) == (404, True)


def test_the_version_is_not_told_unless_wanted() -> None:
    assert probe_web().ask("/").headers["server"] == "wamp-proxy"
    assert probe_web({"show_server_version": True}).ask("/").headers["server"].startswith("wamp-proxy/")


def test_a_resource_that_fails_is_a_500_without_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    answer = probe_web().ask("/fail")
    assert answer.status == 500
    assert "reason" not in answer.text
    assert "the <secret> reason" in caplog.text


def test_tracebacks_are_shown_where_wanted() -> None:
    answer = probe_web({"display_tracebacks": True}).ask("/fail")
    assert "RuntimeError: the &lt;secret&gt; reason" in answer.text


def test_a_resource_that_answers_nonsense_is_a_500() -> None:
    assert probe_web().ask("/number").status == 500


def test_head_is_get_without_the_body() -> None:
    web = probe_web()
    assert web.ask("/", "HEAD").headers["content-length"] == web.ask("/").headers["content-length"]


@pytest.mark.parametrize("is_late", [False, True])
def test_head_is_answered_for_a_resource_that_does_not_know_it(is_late: bool) -> None:
    PROBES.clear()
    web = Web({"/": {"type": "resource", "classname": f"{__name__}.OnlyGet", "extra": is_late}})
    channel, transport = web.connect()
    channel.dataReceived(head("HEAD / HTTP/1.1", "host: a"))
    if is_late:
        PROBES[0].write(b"five!")
        PROBES[0].finish()
    answer = parse(transport.value(), "HEAD")
    assert (answer.status, answer.body) == (200, b"")


def test_a_method_that_is_not_there_is_a_405() -> None:
    answer = probe_web().ask("/", "DELETE")
    assert answer.status == 405
    assert {name.strip() for name in answer.headers["allow"].split(",")} == {"GET", "HEAD", "POST"}


def test_pages_of_twisted_give_way_to_ours() -> None:
    web = probe_web()
    web.site.branch.services["/"].resource = notFound()
    answer = web.ask("/x")
    assert answer.status == 404
    assert "There is nothing at this address." in answer.text


def test_error_pages_load_nothing() -> None:
    answer = probe_web().ask("/fail")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "http" not in answer.text.partition("</head>")[2]


# --- the access log ---


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the access log has."""
    return [record.getMessage() for record in caplog.records if record.name == "proxy.web.access"]


def test_the_access_log_has_one_line_for_each_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    web = probe_web({"access_log": True})
    web.ask("/a", user_agent='evil" agent', referer="https://u:pass@h/?token=abc")
    (line,) = lines(caplog)
    assert line.startswith("192.0.2.7 - - [")
    assert '"GET /a HTTP/1.1" 200 ' in line
    assert 'evil\\" agent' in line
    assert "pass" not in line
    assert "abc" not in line


def test_secrets_in_queries_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    probe_web({"access_log": True}).ask("/a?x=1&signature=hush&key=mine&y=2")
    (line,) = lines(caplog)
    assert "hush" not in line
    assert "mine" not in line
    assert "x=1" in line
    assert "y=2" in line


def test_nothing_is_logged_by_default(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    probe_web().ask("/a")
    assert not lines(caplog)


def test_control_characters_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    probe_web({"access_log": True}).send(b"GET /a HTTP/1.1\r\nhost: a\r\nuser-agent: a\x1b[1m\x85b\r\n\r\n")
    (line,) = lines(caplog)
    assert line.isascii()
    assert line.isprintable()


def test_a_client_on_a_unix_socket_has_no_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    probe_web({"access_log": True}).send(head("GET /a HTTP/1.0"), Peer())
    assert lines(caplog)[0].startswith("unix - - ")


def test_the_client_is_where_the_tests_think() -> None:
    assert CLIENT.host == "192.0.2.7"
