"""The meta API of a real router where the proxy draws the session IDs: what a client learns there it can use there.

Five clients in one realm: three behind transports with ``session_ids: proxy`` (``a``, ``b``, ``c``: other serializers,
other data threads, one of them translated), one behind a transport with ``session_ids: router`` (``d``), and one that
is connected to the router itself (``e``).
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest

from support import raw
from support.census import threads
from support.endpoints import Endpoint
from support.process import wait_until
from support.proxies import Config, ProxyProcess
from support.raw import (
    CALL,
    ERROR,
    EVENT,
    GOODBYE,
    INVOCATION,
    PUBLISH,
    PUBLISHED,
    REGISTERED,
    RESULT,
    SUBSCRIBED,
    UNSUBSCRIBED,
    WELCOME,
    YIELD,
    Peer,
    hello,
)
from support.routers import HISTORY_REALM, HISTORY_TOPIC, META_REALM, CrossbarRouter

pytestmark = pytest.mark.peers

NO_SUCH_SESSION = "wamp.error.no_such_session"
PROXIED = ("a", "b", "c")
"""Whose transports draw the IDs."""
WORKERS = ("a", "b", "c", "d")
"""Who is connected to the worker: they know each other by the IDs that each was told, ``e`` by the router's."""
EVERYBODY = ("a", "b", "c", "d", "e")
SERIALIZERS = {"a": "json", "b": "msgpack", "c": "cbor", "d": "cbor", "e": "msgpack"}


@pytest.fixture(scope="module")
def proxy(crossbar: CrossbarRouter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A proxy with two data threads in front of the realm; idle and clean at the end."""
    config = Config(tmp_path_factory.mktemp("meta"))
    for role in ("anonymous", "guest"):
        config.backend("crossbar", crossbar.backends["crossbar"], META_REALM, role)
    config.backend("crossbar_json", crossbar.translating["json"], META_REALM, "translated")
    config.backend("crossbar", crossbar.backends["crossbar"], HISTORY_REALM)
    config.listen("websocket", "a", session_ids="proxy")
    config.listen("rawsocket", "b", session_ids="proxy", unix=True)
    config.listen("rawsocket", "c", session_ids="proxy", role="translated")
    config.listen("rawsocket", "d", session_ids="router")
    config.listen("rawsocket", "guest", session_ids="proxy", role="guest")
    named = {"anonymous": {"type": "static", "role": "guest", "authid": "joe"}}
    config.listen("rawsocket", "joe", session_ids="proxy", auth=named)
    config.endpoints["e"] = crossbar.direct["rs-unix"]
    proxy = ProxyProcess(config, threads=2)
    yield proxy
    proxy.check_idle()
    proxy.stop()
    proxy.check_log()


def login(endpoint: Endpoint, serializer: str = "cbor", realm: str = META_REALM) -> Peer:
    """A joined client that wants to be told when a subscription is taken from it."""
    roles: dict[str, Any] = copy.deepcopy(raw.CLIENT_ROLES)
    roles["subscriber"]["features"]["subscription_revocation"] = True
    return raw.dial(endpoint, serializer).join(realm, roles=roles)


class Crowd:
    """The five clients, and what the router itself calls each of them."""

    def __init__(self, proxy: ProxyProcess) -> None:
        self.proxy = proxy
        self.peers = {name: login(proxy.endpoints[name], SERIALIZERS[name]) for name in EVERYBODY}
        self.more: list[Peer] = []
        by_authid = {peer.welcome[2]["authid"]: name for name, peer in self.peers.items()}
        ids = self["e"].call("wamp.session.list")
        self.back = {by_authid[self["e"].call("wamp.session.get", sid)["authid"]]: sid for sid in ids}

    def __getitem__(self, name: str) -> Peer:
        return self.peers[name]

    def login(self, name: str, serializer: str = "cbor") -> Peer:
        """One more client."""
        self.more.append(login(self.proxy.endpoints[name], serializer))
        return self.more[-1]

    @property
    def ids(self) -> set[int]:
        """The IDs of the five as clients with IDs of the proxy know them."""
        return {peer.session for peer in self.peers.values()}

    def view(self, name: str) -> dict[str, int]:
        """What client ``name`` calls each of the five."""
        return {other: self[other].session for other in EVERYBODY} if name in WORKERS else self.back

    def close(self) -> None:
        """End all connections."""
        for peer in [*self.peers.values(), *self.more]:
            peer.close()


@pytest.fixture
def crowd(proxy: ProxyProcess) -> Iterator[Crowd]:
    """Five clients, alone in their realm before and after the test."""
    crowd = Crowd(proxy)
    yield crowd
    crowd.close()
    watcher = login(proxy.endpoints["e"])
    wait_until(lambda: watcher.call("wamp.session.list") == [watcher.session], "all other sessions have ended")
    watcher.leave()


def error_of(peer: Peer, procedure: str, *args: Any) -> str:
    """The URI of the ERROR that a call ends in."""
    request = peer.request()
    peer.send([CALL, request, {}, procedure, list(args)])
    message = peer.recv_type(ERROR)
    assert message[1:3] == [CALL, request]
    return str(message[4])


def next_event(peer: Peer, subscription: int) -> list[Any]:
    """The next EVENT, which must be of a subscription."""
    message = peer.recv_type(EVENT)
    assert message[1] == subscription, message
    return message


# --- sessions ---


def test_ids_are_the_proxys(crowd: Crowd) -> None:
    """WELCOME holds another ID than the router's behind ``proxy``, and the router's behind ``router``."""
    assert threads(crowd.proxy.pid) >= 3
    assert set(crowd.back) == set(EVERYBODY)
    for name in EVERYBODY:
        assert 1 <= crowd[name].session <= 2**53
        assert (crowd[name].session == crowd.back[name]) == (name not in PROXIED)
    assert len({*crowd.ids, *crowd.back.values()}) == len(EVERYBODY) + len(PROXIED)


def test_ids_are_drawn_from_the_whole_range(crowd: Crowd) -> None:
    """No two alike, none small, none in order."""
    ids = [crowd.login("b").session for _ in range(60)]
    assert len(set(ids)) == 60
    assert sum(sid > 2**52 for sid in ids) in range(10, 51)
    assert ids != sorted(ids)


@pytest.mark.parametrize("name", EVERYBODY)
def test_list_count_get(name: str, crowd: Crowd) -> None:
    """Everybody finds everybody, under the ID that is known to him, and the details are those of that session."""
    peer, view = crowd[name], crowd.view(name)
    assert sorted(peer.call("wamp.session.list")) == sorted(view.values())
    assert peer.call("wamp.session.count") == len(EVERYBODY)
    for other, sid in view.items():
        details = peer.call("wamp.session.get", sid)
        assert details["session"] == sid
        assert details["authid"] == crowd[other].welcome[2]["authid"]
    assert sorted(peer.call("wamp.session.list", ["anonymous"])) == sorted(view.values())
    assert peer.call("wamp.session.list", ["nobody"]) == []
    assert error_of(peer, "wamp.session.get", 1) == NO_SUCH_SESSION
    assert peer.call("wamp.session.count") == len(EVERYBODY)


def test_many_sessions(crowd: Crowd) -> None:
    """A list of more than 256 IDs, which take more octets here than there or fewer."""
    more = {crowd.login(random.Random(i).choice("abc")).session for i in range(300)}
    for name in WORKERS:
        assert set(crowd[name].call("wamp.session.list")) == crowd.ids | more


def test_second_session_on_one_connection(crowd: Crowd) -> None:
    """After GOODBYE another HELLO draws another ID; the old one is nobody's."""
    peer = crowd.login("b")
    first = peer.session
    peer.goodbye()
    peer.join(META_REALM)
    assert peer.session != first
    assert sorted(crowd["a"].call("wamp.session.list")) == sorted({*crowd.ids, peer.session})
    assert crowd["a"].call("wamp.session.get", peer.session)["authid"] == peer.welcome[2]["authid"]
    assert error_of(crowd["a"], "wamp.session.get", first) == NO_SUCH_SESSION


@pytest.mark.parametrize("victim", ["a", "b", "c", "d", "e"])
@pytest.mark.parametrize("killer", ["a", "b", "c", "d", "e"])
def test_kill(killer: str, victim: str, crowd: Crowd) -> None:
    """Whoever is killed by the ID that another one knows gets GOODBYE; everybody else lives and hears of it."""
    if killer == victim:
        pytest.skip("see test_kill_oneself")
    witnesses = [name for name in EVERYBODY if name not in (killer, victim)]
    subscriptions = {name: crowd[name].subscribe("wamp.session.on_leave") for name in witnesses}
    crowd[killer].call("wamp.session.kill", crowd.view(killer)[victim], "com.example.reason", "because")
    message = crowd[victim].recv_type(GOODBYE)
    assert message[2] == "com.example.reason"
    assert message[1].get("message") == "because"
    crowd[victim].send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
    for name in witnesses:
        assert next_event(crowd[name], subscriptions[name])[4][0] == crowd.view(name)[victim]
        assert error_of(crowd[name], "wamp.session.get", crowd.view(name)[victim]) == NO_SUCH_SESSION
        assert sorted(crowd[name].call("wamp.session.list")) == sorted(
            sid for other, sid in crowd.view(name).items() if other != victim
        )


def last_words(peer: Peer) -> list[list[Any]]:
    """What a session receives for killing itself, without what the router says of itself and of the IDs."""
    peer.send([CALL, peer.request(), {}, "wamp.session.kill", [peer.session]])
    messages = [peer.recv()]
    while messages[-1][0] not in (GOODBYE, ERROR):
        messages.append(peer.recv())
    return [[part for part in message if not isinstance(part, dict)] for message in messages]


@pytest.mark.parametrize("name", PROXIED)
def test_kill_oneself(name: str, crowd: Crowd) -> None:
    """The router decides by its own ID: the outcome is the same as without a proxy."""
    assert last_words(crowd[name]) == last_words(crowd["e"])


def test_kill_nobody(crowd: Crowd) -> None:
    """An ID that is nobody's: no such session, and nobody is killed."""
    for name in EVERYBODY:
        assert error_of(crowd[name], "wamp.session.kill", 4711) == NO_SUCH_SESSION
    assert crowd["a"].call("wamp.session.count") == len(EVERYBODY)


@pytest.mark.parametrize("name", EVERYBODY)
@pytest.mark.parametrize(("procedure", "key"), [("authid", "joe"), ("authrole", "guest")])
def test_kill_by(procedure: str, key: str, name: str, crowd: Crowd) -> None:
    """The IDs of those who were killed are those that others know them by."""
    victims = [crowd.login("joe") for _ in range(3)]
    known = set(crowd["a"].call("wamp.session.list", ["guest"])) if name in WORKERS else set()
    killed = crowd[name].call(f"wamp.session.kill_by_{procedure}", key)
    for victim in victims:
        victim.recv_type(GOODBYE)
        victim.send([GOODBYE, {}, "wamp.close.goodbye_and_out"])
    if name in WORKERS:
        assert set(killed) == known == {victim.session for victim in victims}
    else:
        assert len(killed) == len(victims)
        assert not set(killed) & {victim.session for victim in victims}
    wait_until(lambda: crowd[name].call("wamp.session.count") == len(EVERYBODY), "the others have ended")


def test_join_and_leave(crowd: Crowd) -> None:
    """on_join and on_leave name a session as its own WELCOME does, also where many come and go at once."""
    watchers = {name: crowd[name].subscribe("wamp.session.on_join") for name in EVERYBODY}
    leavers = {name: crowd[name].subscribe("wamp.session.on_leave") for name in EVERYBODY}
    chance = random.Random(1)
    guests = []
    for number in range(60):
        name = chance.choice(["a", "b", "c", "guest", "joe"])
        peer = raw.dial(crowd.proxy.endpoints[name], ("json", "msgpack", "cbor")[number % 3])
        guests.append(peer)
        crowd.more.append(peer)
    for peer in guests:  # all logins at once
        peer.send(hello(META_REALM))
    details = {}
    for peer in guests:
        peer.welcome = peer.recv_type(WELCOME)
        peer.session = peer.welcome[1]
        details[peer.session] = peer.welcome[2]
    for name in WORKERS:
        joined = [next_event(crowd[name], watchers[name])[4][0] for _ in guests]
        assert {item["session"] for item in joined} == set(details)
        for item in joined:
            assert item["authid"] == details[item["session"]]["authid"]
            assert crowd[name].call("wamp.session.get", item["session"])["authid"] == item["authid"]
    for number, peer in enumerate(guests):
        if number % 2:
            peer.send([GOODBYE, {}, "wamp.close.close_realm"])
        else:
            peer.close()
    for name in WORKERS:
        left = {next_event(crowd[name], leavers[name])[4][0] for _ in guests}
        assert left == set(details)
    ids = [next_event(crowd["e"], watchers["e"])[4][0]["session"] for _ in guests]
    assert {next_event(crowd["e"], leavers["e"])[4][0] for _ in guests} == set(ids)
    assert not set(ids) & set(details)


@pytest.mark.parametrize(("match", "topic"), [("prefix", "wamp.session."), ("wildcard", "wamp..on_join")])
def test_join_by_pattern(match: str, topic: str, crowd: Crowd) -> None:
    """A pattern subscription tells by Details.topic what its event is."""
    for name in WORKERS:
        crowd[name].send([raw.SUBSCRIBE, crowd[name].request(), {"match": match}, topic])
        subscription = crowd[name].recv_type(SUBSCRIBED)[2]
        guest = crowd.login("guest")
        event = next_event(crowd[name], subscription)
        assert event[3]["topic"] == "wamp.session.on_join"
        assert event[4][0]["session"] == guest.session


def test_payload_that_only_looks_like_it(crowd: Crowd) -> None:
    """IDs in an application's own payload are its own: nothing there is changed, in no direction."""
    a, b = crowd["a"], crowd["b"]
    numbers = [*crowd.ids, *crowd.back.values()]
    payload = [{"session": number, "caller": number, "list": numbers} for number in numbers]
    uri = "com.example.wamp.session.get"
    b.register(uri)
    subscription = b.subscribe("com.example.wamp.session.on_join")
    a.send([CALL, a.request(), {}, uri, payload, {"session": numbers}])
    invocation = b.recv_type(INVOCATION)
    assert invocation[4:] == [payload, {"session": numbers}]
    b.send([YIELD, invocation[1], {}, payload])
    assert a.recv_type(RESULT)[3] == payload
    a.send([PUBLISH, a.request(), {"acknowledge": True}, "com.example.wamp.session.on_join", payload])
    a.recv_type(PUBLISHED)
    assert next_event(b, subscription)[4] == payload


# --- who did it ---


@pytest.mark.parametrize("other", EVERYBODY)
@pytest.mark.parametrize("name", EVERYBODY)
def test_disclosed(name: str, other: str, crowd: Crowd) -> None:
    """publisher, caller and callee are IDs as the receiver knows them."""
    if name == other:
        pytest.skip("two sessions are needed")
    doer, receiver = crowd[name], crowd[other]
    uri = f"com.example.disclosed.{name}.{other}"
    subscription = receiver.subscribe(uri)
    receiver.register(uri)
    doer.send([PUBLISH, doer.request(), {"acknowledge": True}, uri])
    doer.recv_type(PUBLISHED)
    assert next_event(receiver, subscription)[3]["publisher"] == crowd.view(other)[name]
    doer.send([CALL, doer.request(), {}, uri])
    invocation = receiver.recv_type(INVOCATION)
    assert invocation[3]["caller"] == crowd.view(other)[name]
    receiver.send([YIELD, invocation[1], {}])
    details = doer.recv_type(RESULT)[2]
    assert details.get("callee", crowd.view(name)[other]) == crowd.view(name)[other]


@pytest.mark.parametrize("name", EVERYBODY)
def test_exclude_and_eligible(name: str, crowd: Crowd) -> None:
    """Lists of IDs as the publisher knows them choose the receivers; unknown IDs in them do no harm."""
    publisher, view = crowd[name], crowd.view(name)
    topic = f"com.example.chosen.{name}"
    others = [other for other in EVERYBODY if other != name]
    for other in others:
        crowd[other].subscribe(topic)
    chance = random.Random(name)
    unknown = [chance.randrange(1, 2**53) for _ in range(300)]
    expected: dict[str, list[str]] = {other: [] for other in others}

    def publish(text: str, receivers: list[str], **options: Any) -> None:
        publisher.send([PUBLISH, publisher.request(), {"acknowledge": True, **options}, topic, [text]])
        publisher.recv_type(PUBLISHED)
        for receiver in receivers:
            expected[receiver].append(text)

    for one in others:
        rest = [other for other in others if other != one]
        publish(f"not {one}", rest, exclude=[view[one]])
        publish(f"only {one}", [one], eligible=[view[one]])
        publish(f"not {one} of many", rest, exclude=[*unknown[:200], view[one], *unknown[200:]])
        publish(f"only {one} of many", [one], eligible=[*unknown[:20], view[one], *unknown[20:]])
        publish(f"both {one}", [], eligible=[view[one]], exclude=[view[one], 1])
    publish("all", others, eligible=[view[other] for other in others], exclude=unknown)
    publish("end", others)
    for other in others:
        texts = []
        while not texts or texts[-1] != "end":
            texts.append(crowd[other].recv_type(EVENT)[4][0])
        assert texts == expected[other]


def test_lists_of_many(crowd: Crowd) -> None:
    """Lists of every length around what a serializer's heads hold, over both data threads."""
    topic = "com.example.many"
    crew = [crowd.login("abc"[number % 3]) for number in range(40)]
    for peer in crew:
        peer.subscribe(topic)
    unknown = [2**53 - i for i in range(70_000)]
    for name in ("a", "b", "c"):
        for length in (1, 15, 16, 23, 24, 31, 32, 255, 256, 65_536):
            chosen = crew[: min(length, len(crew))]
            ids = [peer.session for peer in chosen]
            ids += unknown[: length - len(ids)]
            options = {"acknowledge": True, "eligible": ids}
            crowd[name].send([PUBLISH, crowd[name].request(), options, topic, [name, length]])
            crowd[name].recv_type(PUBLISHED)
            for peer in chosen:
                assert peer.recv_type(EVENT)[4] == [name, length]
    crowd["a"].send([PUBLISH, crowd["a"].request(), {"acknowledge": True}, topic, ["end"]])
    crowd["a"].recv_type(PUBLISHED)
    for peer in crew:
        assert peer.recv_type(EVENT)[4] == ["end"]


# --- subscriptions and registrations ---


@pytest.mark.parametrize("name", EVERYBODY)
def test_subscriptions(name: str, crowd: Crowd) -> None:
    """Subscribers are listed, looked up and removed by the IDs that the caller knows."""
    peer, view = crowd[name], crowd.view(name)
    topic = f"com.example.subscribed.{name}"
    ids = {other: crowd[other].subscribe(topic) for other in EVERYBODY}
    (subscription,) = set(ids.values())
    assert sorted(peer.call("wamp.subscription.list_subscribers", subscription)) == sorted(view.values())
    assert peer.call("wamp.subscription.count_subscribers", subscription) == len(EVERYBODY)
    assert peer.call("wamp.subscription.get", subscription)["uri"] == topic
    assert peer.call("wamp.subscription.lookup", topic) == subscription
    for sid in view.values():
        assert subscription in peer.call("wamp.subscription.list", sid)["exact"]
    victim = "a" if name != "a" else "b"
    peer.call("wamp.subscription.remove_subscriber", subscription, view[victim])
    message = crowd[victim].recv_type(UNSUBSCRIBED)
    assert message[:2] == [UNSUBSCRIBED, 0]
    assert message[2]["subscription"] == subscription
    left = sorted(sid for other, sid in view.items() if other != victim)
    assert sorted(peer.call("wamp.subscription.list_subscribers", subscription)) == left
    assert error_of(peer, "wamp.subscription.remove_subscriber", subscription, 4711) == NO_SUCH_SESSION


@pytest.mark.parametrize("name", EVERYBODY)
def test_registrations(name: str, crowd: Crowd) -> None:
    """Callees likewise."""
    peer, view = crowd[name], crowd.view(name)
    uri = f"com.example.registered.{name}"
    (registration,) = {crowd[other].register(uri, invoke="roundrobin") for other in EVERYBODY}
    assert sorted(peer.call("wamp.registration.list_callees", registration)) == sorted(view.values())
    assert peer.call("wamp.registration.count_callees", registration) == len(EVERYBODY)
    assert peer.call("wamp.registration.get", registration)["uri"] == uri
    assert peer.call("wamp.registration.lookup", uri) == registration
    for sid in view.values():
        assert registration in peer.call("wamp.registration.list", sid)["exact"]
    victim = "a" if name != "a" else "b"
    # Crossbar.io takes the callee away, and then fails for a reason of its own instead of answering.
    peer.send([CALL, peer.request(), {}, "wamp.registration.remove_callee", [registration, view[victim]]])
    peer.recv_type(RESULT, ERROR)
    left = sorted(sid for other, sid in view.items() if other != victim)
    assert sorted(peer.call("wamp.registration.list_callees", registration)) == left
    assert error_of(peer, "wamp.registration.remove_callee", registration, 4711) == NO_SUCH_SESSION


def of_topics(peer: Peer, topics: dict[int, str], count: int) -> list[tuple[str, Any, Any]]:
    """The next events: (topic, first argument, second argument)."""
    events = [peer.recv_type(EVENT) for _ in range(count)]
    return [(topics[event[1]], event[4][0], event[4][1]) for event in events]


@pytest.mark.parametrize("name", EVERYBODY)
def test_subscription_events(name: str, crowd: Crowd) -> None:
    """on_create, on_subscribe, on_unsubscribe and on_delete name sessions as the watcher knows them."""
    watcher, view = crowd[name], crowd.view(name)
    kinds = ["on_create", "on_subscribe", "on_unsubscribe", "on_delete"]
    topics = {watcher.subscribe(f"wamp.subscription.{kind}"): kind for kind in kinds}
    one, two = [other for other in ("a", "b", "d") if other != name][:2]
    topic = f"com.example.watched.{name}"
    number = crowd[one].subscribe(topic)
    created, subscribed = of_topics(watcher, topics, 2)
    assert created[:2] == ("on_create", view[one])
    assert created[2]["id"] == number
    assert subscribed == ("on_subscribe", view[one], number)
    crowd[two].subscribe(topic)
    assert of_topics(watcher, topics, 1) == [("on_subscribe", view[two], number)]
    for other in (one, two):
        crowd[other].send([raw.UNSUBSCRIBE, crowd[other].request(), number])
        crowd[other].recv_type(UNSUBSCRIBED)
    ended = of_topics(watcher, topics, 3)
    assert ended == [
        ("on_unsubscribe", view[one], number),
        ("on_unsubscribe", view[two], number),
        ("on_delete", view[two], number),
    ]


@pytest.mark.parametrize("name", EVERYBODY)
def test_registration_events(name: str, crowd: Crowd) -> None:
    """The same for registrations."""
    watcher, view = crowd[name], crowd.view(name)
    topics = {
        watcher.subscribe(f"wamp.registration.{kind}"): kind
        for kind in ("on_create", "on_register", "on_unregister", "on_delete")
    }
    one, two = [other for other in ("a", "b", "d") if other != name][:2]
    uri = f"com.example.watched.{name}"
    number = crowd[one].register(uri, invoke="roundrobin")
    created, registered = of_topics(watcher, topics, 2)
    assert created[:2] == ("on_create", view[one])
    assert created[2]["id"] == number
    assert registered == ("on_register", view[one], number)
    assert crowd[two].register(uri, invoke="roundrobin") == number
    assert of_topics(watcher, topics, 1) == [("on_register", view[two], number)]
    for other in (one, two):
        crowd[other].send([raw.UNREGISTER, crowd[other].request(), number])
        crowd[other].recv_type(raw.UNREGISTERED)
    ended = of_topics(watcher, topics, 3)
    assert ended == [
        ("on_unregister", view[one], number),
        ("on_unregister", view[two], number),
        ("on_delete", view[two], number),
    ]


# --- testaments and history ---


@pytest.mark.parametrize("form", ["positional", "keyword"])
@pytest.mark.parametrize("name", EVERYBODY)
def test_testament(name: str, form: str, crowd: Crowd) -> None:
    """publish_options of a testament hold IDs as the testator knows them."""
    topic, view = f"com.example.testament.{name}.{form}", crowd.view(name)
    heirs = [other for other in EVERYBODY if other != name]
    for heir in heirs:
        crowd[heir].subscribe(topic)
    testator = crowd[name]
    wills: list[tuple[str, dict[str, Any]]] = [
        ("but one", {"exclude": [view[heirs[0]], 4711]}),
        ("two", {"eligible": [view[heirs[1]], view[heirs[2]], 4712]}),
        ("all", {}),
    ]
    for text, options in wills:
        args: list[Any] = [topic, [text], {}]
        request = testator.request()
        if form == "positional":
            testator.send([CALL, request, {}, "wamp.session.add_testament", [*args, options]])
        else:
            testator.send([CALL, request, {}, "wamp.session.add_testament", args, {"publish_options": options}])
        assert testator.recv_type(RESULT)[1] == request
    testator.close()
    received: dict[str, list[str]] = {heir: [] for heir in heirs}
    for heir in heirs:
        while not received[heir] or received[heir][-1] != "all":
            received[heir].append(crowd[heir].recv_type(EVENT)[4][0])
    assert received == {
        heirs[0]: ["all"],
        heirs[1]: ["but one", "two", "all"],
        heirs[2]: ["but one", "two", "all"],
        heirs[3]: ["but one", "all"],
    }


def test_history(proxy: ProxyProcess) -> None:
    """Kept events name their publisher as the caller knows him."""
    peers = {name: login(proxy.endpoints[name], SERIALIZERS[name], HISTORY_REALM) for name in ("a", "b", "e")}
    subscription = peers["a"].subscribe(HISTORY_TOPIC)
    for name in ("b", "e"):
        peers[name].send([PUBLISH, peers[name].request(), {"acknowledge": True}, HISTORY_TOPIC, [1]])
        peers[name].recv_type(PUBLISHED)
        publisher = next_event(peers["a"], subscription)[3]["publisher"]
        assert publisher == peers[name].session
        kept = peers["a"].call("wamp.subscription.get_events", subscription, 1)
        assert kept[0]["session_id"] == publisher
        assert peers["b"].call("wamp.subscription.get_events", subscription, 1)[0]["session_id"] == publisher
    for peer in peers.values():
        peer.leave()


# --- what goes on at the same time ---


def test_requests_in_one_write(crowd: Crowd) -> None:
    """Calls of the meta API and others, many of them under way at once, each get their own answer."""
    a = crowd["a"]
    crowd["b"].register("com.example.echo")
    procedures = ["wamp.session.list", "com.example.echo", "wamp.session.get", "wamp.session.count"] * 40
    requests = []
    for procedure in procedures:
        args = [crowd["b"].session] if procedure == "wamp.session.get" else [crowd.back["b"]]
        args = [] if procedure in ("wamp.session.list", "wamp.session.count") else args
        requests.append([CALL, a.request(), {}, procedure, args])
    a.send(*requests)
    for _ in range(40):
        invocation = crowd["b"].recv_type(INVOCATION)
        crowd["b"].send([YIELD, invocation[1], {}, invocation[4]])
    answers = {}
    for _ in procedures:
        message = a.recv_type(RESULT)
        answers[message[1]] = message[3][0]
    for request in requests:
        answer = answers[request[1]]
        if request[3] == "wamp.session.list":
            assert set(answer) == crowd.ids
        elif request[3] == "wamp.session.get":
            assert answer["session"] == crowd["b"].session
        elif request[3] == "wamp.session.count":
            assert answer == len(EVERYBODY)
        else:
            assert answer == crowd.back["b"]


def test_registered_ids_are_not_session_ids(crowd: Crowd) -> None:
    """Request, subscription, registration and publication IDs are nobody's session IDs and stay as they are."""
    c, numbers = crowd["c"], itertools.count()
    for sid in (*crowd.ids, *crowd.back.values()):
        c.send([raw.UNSUBSCRIBE, sid, sid])
        assert c.recv_type(ERROR)[:3] == [ERROR, raw.UNSUBSCRIBE, sid]
        c.send([raw.REGISTER, sid, {}, f"com.example.of{next(numbers)}"])
        assert c.recv_type(REGISTERED)[1] == sid
