"""Rewriting changes session IDs and nothing else: for messages as autobahn writes them, decoded by autobahn again; for
messages in all spellings that a serializer allows; and for octets that are no messages at all it is at least harmless.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from proxy._relay import (
    probe_fields_head,
    probe_fields_request,
    probe_notes,
    probe_rewrite,
    probe_sids,
    probe_wamp_type,
)
from support.gate import AUTOBAHN, CBOR, DUMP, JSON, MSGPACK, PASSES, TO_BACK, TO_FRONT, UBJSON, Guarded
from support.rewriting import FRONT, LOAD, UINT, Realm, Sid

from autobahn.wamp import message as wamp  # isort: skip  (support.gate chooses the framework first)

MANY = settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
GUARDED = Guarded()

serializers = st.sampled_from([JSON, MSGPACK, CBOR, UBJSON])
sids = st.integers(1, 2**53) | st.integers(1, 300)
requests = st.integers(1, 2**53)
texts = st.text(max_size=12)
names = st.sampled_from(["joe", "user", "\u00e9t\u00e9", "publisher"])
uris = st.sampled_from(["com.example.a", "wamp", "wamp.session", "com.wamp.session.get"])


class Maps:
    """Sessions with random IDs, unique on either side, in one realm; a second realm has the sides exchanged."""

    def __init__(self, pairs: list[tuple[int, int]]) -> None:
        self.front = [front for front, _ in pairs]
        self.back = [back for _, back in pairs]
        self.sids = probe_sids()
        self.there, self.again = self.sids.add_realm(), self.sids.add_realm()
        for front, back in pairs:
            self.sids.put(self.there, front, back)
            self.sids.put(self.again, back, front)

    def read(self, direction: int) -> dict[int, int]:
        """Sender's ID to reader's ID."""
        pairs = zip(self.back, self.front, strict=True) if direction else zip(self.front, self.back, strict=True)
        return dict(pairs)

    def rewrite(self, realm: int, serializer: int, direction: int, code: int, data: bytes) -> bytes:
        """The message after the rewriter, changed or not."""
        room = GUARDED(data)
        out = probe_rewrite(serializer, direction, code, room, self.sids, realm, probe_notes())
        return data if out is None else bytes(out)


maps = st.lists(
    st.tuples(sids, sids), min_size=1, max_size=8, unique_by=(lambda pair: pair[0], lambda pair: pair[1])
).map(Maps)


# --- messages of autobahn --------------------------------------------------------------------------------------------

KINDS_TO_BACK = ["publish", "subscribe", "unsubscribe", "call", "cancel", "register", "unregister", "yield", "error"]
KINDS_TO_FRONT = ["event", "result", "invocation", "interrupt", "error", "published", "subscribed"]
Ids = Callable[[int], int]
Plan = Callable[[Ids], wamp.Message]


@st.composite
def plans(draw: st.DrawFn, direction: int, read: dict[int, int]) -> Plan:
    """A message of a random type with random options, still to be told how the reader calls a session.

    IDs of strangers are no reader's ID: on the way back they would be taken for one.
    """
    known = st.sampled_from(list(read))
    some = known | known | sids.filter(lambda sid: sid not in read.values())
    maybe = known | known | some | st.none()
    scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | some | texts
    values = st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["session", "publisher", "exclude", "x"]) | texts, inner, max_size=4)
        ),
        max_leaves=8,
    )
    forward = draw(st.none() | st.lists(st.tuples(some, st.none() | names, names), min_size=1, max_size=3))
    options: dict[str, Any] = {}
    payload: dict[str, Any] = draw(
        st.fixed_dictionaries({}, optional={
            "args": st.lists(values, min_size=1, max_size=3),
            "kwargs": st.dictionaries(texts | st.just("session"), values, min_size=1, max_size=3),
        })
        | st.binary(min_size=1, max_size=20).map(
            lambda octets: {"payload": octets, "enc_algo": "cryptobox", "enc_serializer": "cbor"})
    )  # fmt: skip
    if "kwargs" in payload:
        payload.setdefault("args", [1])  # autobahn writes null else, and refuses to read it in a PUBLISH
    lists = st.lists(some, min_size=1, max_size=4) | st.none()
    request = draw(requests | some)
    flag = draw(st.none() | st.booleans())
    name = draw(st.none() | names)

    def forwarded(ids: Ids) -> dict[str, Any]:
        found = [{"session": ids(sid), "authid": who, "authrole": role} for sid, who, role in forward or []]
        return {"forward_for": found or None}

    def one(sid: int | None, ids: Ids) -> int | None:
        return None if sid is None else ids(sid)

    if direction == TO_BACK:
        kind = draw(st.sampled_from(KINDS_TO_BACK))
    else:
        kind = draw(st.sampled_from(KINDS_TO_FRONT))
    uri, sid = draw(uris), draw(maybe)
    if kind == "publish":
        exclude, eligible = draw(lists), draw(lists)
        return lambda ids: wamp.Publish(
            request, uri, acknowledge=flag, exclude_me=flag, exclude=exclude and [ids(x) for x in exclude],
            exclude_authid=name and [name], eligible=eligible and [ids(x) for x in eligible], retain=flag,
            **forwarded(ids), **payload,
        )  # fmt: skip
    if kind == "event":
        return lambda ids: wamp.Event(
            request, 5, publisher=one(sid, ids), publisher_authid=name, topic=name and uri, retained=flag,
            **forwarded(ids), **payload,
        )  # fmt: skip
    if kind == "call":
        return lambda ids: wamp.Call(
            request, uri, timeout=5, receive_progress=flag, caller=one(sid, ids), caller_authid=name,
            **forwarded(ids), **payload,
        )  # fmt: skip
    if kind == "invocation":
        return lambda ids: wamp.Invocation(
            request, 7, caller=one(sid, ids), caller_authid=name, procedure=name and uri, receive_progress=flag,
            **forwarded(ids), **payload,
        )  # fmt: skip
    if kind in ("result", "yield"):
        options["callee_authid"] = name
        type_ = wamp.Result if kind == "result" else wamp.Yield
        return lambda ids: type_(request, progress=flag, callee=one(sid, ids), **options, **forwarded(ids), **payload)
    if kind == "error":
        of = 48 if direction else 68
        return lambda ids: wamp.Error(
            of, request, uri, callee=one(sid, ids), callee_authid=name, **forwarded(ids), **payload
        )
    simple: dict[str, Plan] = {
        "subscribe": lambda ids: wamp.Subscribe(request, uri, match="prefix", get_retained=flag, **forwarded(ids)),
        "unsubscribe": lambda ids: wamp.Unsubscribe(request, 5, **forwarded(ids)),
        "cancel": lambda ids: wamp.Cancel(request, mode="kill", **forwarded(ids)),
        "register": lambda ids: wamp.Register(request, uri, force_reregister=flag, **forwarded(ids)),
        "unregister": lambda ids: wamp.Unregister(request, 5, **forwarded(ids)),
        "interrupt": lambda ids: wamp.Interrupt(request, mode="kill", **forwarded(ids)),
        "published": lambda ids: wamp.Published(request, request),
        "subscribed": lambda ids: wamp.Subscribed(request, request),
    }
    return simple[kind]


@given(st.data(), serializers, st.sampled_from([TO_BACK, TO_FRONT]), maps)
@MANY
def test_autobahn_reads_the_same_message_with_other_ids(
    data: st.DataObject, serializer: int, direction: int, some: Maps
) -> None:
    read = some.read(direction)
    plan = data.draw(plans(direction, read))
    original, expected = plan(lambda sid: sid), plan(lambda sid: read.get(sid, sid))
    octets, _ = AUTOBAHN[serializer].serialize(original)
    wanted, _ = AUTOBAHN[serializer].serialize(expected)
    code = original.MESSAGE_TYPE
    out = some.rewrite(some.there, serializer, direction, code, octets)
    event(f"{type(original).__name__}: {'changes' if out != octets else 'stays'}")
    assert [m.marshal() for m in AUTOBAHN[serializer].unserialize(out)] == [
        m.marshal() for m in AUTOBAHN[serializer].unserialize(wanted)
    ]
    assert out == wanted
    assert probe_wamp_type(serializer, out)[:2] == (1, code)
    assert some.rewrite(some.again, serializer, direction, code, out) == octets


@given(st.data(), serializers, st.sampled_from([TO_BACK, TO_FRONT]), maps)
@COMMON
def test_single_fields_of_messages_of_autobahn(
    data: st.DataObject, serializer: int, direction: int, some: Maps
) -> None:
    original = data.draw(plans(direction, some.read(TO_BACK)))(lambda sid: sid)
    octets, _ = AUTOBAHN[serializer].serialize(original)
    fields = original.marshal()
    code = original.MESSAGE_TYPE
    progress = bool(original.acknowledge if code == 16 else code in (50, 70) and original.progress)
    expected = (fields[2], fields[1], False) if code == 8 else (fields[1], 0, progress)
    assert probe_fields_request(serializer, code, GUARDED(octets)) == expected
    count = {8: 5, 16: 4, 36: 4, 48: 4, 50: 3, 68: 4, 70: 3}.get(code, len(fields))
    head = probe_fields_head(serializer, code, GUARDED(octets))
    assert LOAD[serializer](head) == LOAD[serializer](octets)[:count]
    assert head[1:-1] in octets


# --- messages in all spellings ---------------------------------------------------------------------------------------

Piece = tuple[bytes, int]  # octets, and the ID that they are where it must be rewritten (else 0)


UBJSON_INTEGERS = [
    (b"U", 1, 2**8), (b"u", 2, 2**16), (b"m", 4, 2**32), (b"M", 8, 2**64), (b"i", 1, 2**7), (b"I", 2, 2**15),
    (b"l", 4, 2**31), (b"L", 8, 2**63), (b"B", 1, 2**8),
]  # fmt: skip


class Speller:
    """Writes values in one serializer, each in a spelling that is drawn; IDs that count stay pieces of their own."""

    def __init__(self, draw: st.DrawFn, serializer: int, ids: list[int]) -> None:
        self.draw = draw
        self.serializer = serializer
        self.ids = ids

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def space(self) -> bytes:
        return bytes(self.pick(b"", b"", b"", b" ", b"\n\t"))

    def number(self, value: int) -> bytes:
        if self.serializer == JSON:
            return b"%d" % value
        if self.serializer == UBJSON:
            forms = [m + value.to_bytes(n, "little") for m, n, limit in UBJSON_INTEGERS if value < limit]
            return bytes(self.pick(*forms))
        widths = [width for width in (0, 1, 2, 4, 8) if value < (1 << 8 * width if width else 24)]
        width = self.pick(*widths)
        if self.serializer == CBOR:
            return (
                bytes([value])
                if not width
                else bytes([0x18 + (1, 2, 4, 8).index(width)]) + value.to_bytes(width, "big")
            )
        if not width:
            return bytes([value])
        first = 0xCC + (1, 2, 4, 8).index(width)
        if value < 1 << (8 * width - 1):
            first += self.pick(0, 4)
        return bytes([first]) + value.to_bytes(width, "big")

    def head(self, major: int, count: int) -> bytes:
        """CBOR head in any width that fits."""
        body = self.number(count)
        return bytes([body[0] | major << 5]) + body[1:]

    def text(self, value: str) -> bytes:
        octets = value.encode()
        if self.serializer == JSON:
            body = b"".join(
                b"\\u%04x" % ord(char) if not self.draw(st.integers(0, 5)) else json.dumps(char)[1:-1].encode()
                for char in value
            )
            return b'"' + body + b'"'
        if self.serializer == UBJSON:
            return b"C" + octets if len(octets) == 1 and self.pick(True, False) else b"S" + self.key(value)
        if self.serializer == MSGPACK:
            return bytes(self.pick(
                bytes([0xa0 | len(octets)]) if len(octets) < 32 else b"\xd9" + bytes([len(octets)]),
                b"\xd9" + bytes([len(octets)]), b"\xda\0" + bytes([len(octets)]), b"\xdb\0\0\0" + bytes([len(octets)]),
            )) + octets  # fmt: skip
        if self.pick(True, False, False):
            cut = self.draw(st.integers(0, len(value)))
            parts = [value[:cut].encode(), value[cut:].encode()]
            return b"\x7f" + b"".join(self.head(3, len(part)) + part for part in parts) + b"\xff"
        return self.head(3, len(octets)) + octets

    def key(self, value: str) -> bytes:
        """A key of a dictionary, which in UBJSON has no marker."""
        return self.number(len(value.encode())) + value.encode() if self.serializer == UBJSON else self.text(value)

    def noops(self) -> bytes:
        return b"N" * self.pick(0, 0, 0, 1, 2)

    def container(self, kind: str, items: list[list[Piece]]) -> list[Piece]:
        """kind: "array" or "map"; items: elements, or a key and its value together."""
        count = len(items)
        if self.serializer == JSON:
            pieces: list[Piece] = [(b"[" if kind == "array" else b"{", 0), (self.space(), 0)]
            for index, item in enumerate(items):
                pieces += [(b"," if index else b"", 0), (self.space(), 0), *item, (self.space(), 0)]
            return [*pieces, (b"]" if kind == "array" else b"}", 0)]
        if self.serializer == UBJSON:
            counts = count > 0 and self.pick(True, False, False)
            pieces = [(b"[" if kind == "array" else b"{", 0), (b"#" + self.number(count) if counts else b"", 0)]
            for item in items:
                pieces += [(self.noops(), 0), *item]
            end = self.noops() + (b"]" if kind == "array" else b"}")
            return pieces if counts else [*pieces, (end, 0)]
        end = b""
        if self.serializer == MSGPACK:
            short = bytes([(0x90 if kind == "array" else 0x80) | count])
            wide = 0xDC if kind == "array" else 0xDE
            head = self.pick(short, bytes([wide, 0, count]), bytes([wide + 1, 0, 0, 0, count]))
        elif self.pick(True, False, False):
            head, end = b"\x9f" if kind == "array" else b"\xbf", b"\xff"
        else:
            head = self.head(4 if kind == "array" else 5, count)
        return [(head, 0), *(piece for item in items for piece in item), (end, 0)]

    def write(self, value: Any) -> list[Piece]:
        if isinstance(value, Sid):
            sid = self.ids[value.number]
            return [(self.number(sid), sid)]
        if isinstance(value, dict):
            value = list(value.items())
        if isinstance(value, list) and value and isinstance(value[0], tuple):
            colon = b":" if self.serializer == JSON else b""
            return self.container(
                "map",
                [[(self.key(key) + self.space() * bool(colon) + colon, 0), *self.write(item)] for key, item in value],
            )
        if isinstance(value, list):
            return self.container("array", [self.write(item) for item in value])
        if isinstance(value, str):
            return [(self.text(value), 0)]
        if type(value) is int and value >= 0:
            return [(self.number(value), 0)]
        return [(DUMP[self.serializer](value), 0)]

    def message(self, elements: list[Any]) -> list[Piece]:
        """The outer array and the type in the one spelling that the gate takes."""
        inner = [self.write(item) for item in elements[1:]]
        if self.serializer == JSON:
            return [(b"[%d" % elements[0], 0), *(p for item in inner for p in [(b",", 0), *item]), (b"]", 0)]
        if self.serializer == UBJSON:
            pieces = [piece for item in inner for piece in [(self.noops(), 0), *item]]
            return [(b"[U" + bytes([elements[0]]), 0), *pieces, (self.noops() + b"]", 0)]
        head = DUMP[self.serializer]([elements[0]])
        return [(bytes([head[0] + len(inner)]) + head[1:], 0), *(piece for item in inner for piece in item)]


@st.composite
def spelled(draw: st.DrawFn, ids: list[int]) -> tuple[int, int, int, list[Piece]]:
    """(serializer, direction, type, pieces) of a message whose Options or Details have IDs in every allowed place."""
    serializer = draw(serializers)
    some = st.integers(0, len(ids) - 1).map(Sid)
    noise = (
        st.sampled_from(ids) | texts | st.none() | st.booleans() | st.sampled_from([[], {}, -1, 1.5, [{"session": 1}]])
    )
    direction, code, before, after, keys = draw(st.sampled_from([
        (TO_BACK, 16, 1, 1, ["exclude", "eligible"]), (TO_BACK, 48, 1, 1, ["caller"]), (TO_BACK, 70, 1, 0, ["callee"]),
        (TO_BACK, 8, 2, 1, ["callee"]), (TO_FRONT, 8, 2, 1, ["callee"]), (TO_FRONT, 36, 2, 0, ["publisher"]),
        (TO_FRONT, 68, 2, 0, ["caller"]), (TO_FRONT, 50, 1, 0, ["callee"]), (TO_FRONT, 69, 1, 0, []),
    ]))  # fmt: skip
    pairs: list[tuple[str, Any]] = []
    for _ in range(draw(st.integers(1, 5))):
        key = draw(st.sampled_from([*keys, *keys, "forward_for", "x", "publisher_authid", "sessions", ""]))
        if key in ("exclude", "eligible"):
            pairs.append((key, draw(st.lists(some | noise.filter(lambda x: type(x) is not int), max_size=4))))
        elif key == "forward_for":
            principal = st.tuples(some, names).map(lambda pair: [("authid", pair[1]), ("session", pair[0])])
            pairs.append((key, draw(st.lists(principal, max_size=3))))
        elif key in keys:
            pairs.append((key, draw(some)))
        else:
            pairs.append((key, draw(noise)))
    filler = draw(st.lists(st.sampled_from(ids), min_size=before, max_size=before))
    rest = [
        ["com.example.a"][:after],
        draw(st.lists(noise, max_size=3)),
        draw(st.dictionaries(texts, noise, max_size=2)),
    ]
    elements = [code, *filler, pairs, *rest[0], *rest[1 : draw(st.integers(1, 3))]]
    return serializer, direction, code, Speller(draw, serializer, ids).message(elements)


@given(st.data(), maps)
@MANY
def test_every_octet_outside_the_ids_stays(data: st.DataObject, some: Maps) -> None:
    direction_ids = data.draw(st.sampled_from([TO_BACK, TO_FRONT]))
    ids = list(some.read(direction_ids))
    serializer, direction, code, pieces = data.draw(spelled(ids))
    read = some.read(direction)
    octets = b"".join(piece for piece, _ in pieces)
    assert probe_wamp_type(serializer, octets)[:2] == (1, code)
    wanted = b"".join(UINT[serializer](read[sid]) if read.get(sid, sid) != sid else piece for piece, sid in pieces)
    assert some.rewrite(some.there, serializer, direction, code, octets) == wanted


# --- octets that are no messages -------------------------------------------------------------------------------------

REALM = Realm()
CODES = sorted(PASSES[TO_BACK] | PASSES[TO_FRONT])
METAS = ["wamp.session.get", "wamp.session.list", "wamp.session.add_testament", "wamp.session.on_join", "com.a"]


def survive(serializer: int, data: bytes) -> None:
    """Nothing that the parts do with these octets touches an octet beyond them."""
    room = GUARDED(data)
    for code in CODES:
        for direction in (TO_BACK, TO_FRONT):
            for kind in ("call", "subscription"):
                REALM.notes.add(kind, 1, 3)
            with contextlib.suppress(ValueError):
                REALM.rewrite(serializer, direction, code, room)
        with contextlib.suppress(ValueError):
            probe_fields_request(serializer, code, room)
        with contextlib.suppress(ValueError):
            probe_fields_head(serializer, code, room)
    REALM.notes.clear()


@given(serializers, st.sampled_from(CODES), st.sampled_from(METAS), st.data())
@COMMON
def test_changed_messages_are_survived(serializer: int, code: int, uri: str, data: st.DataObject) -> None:
    details = {"publisher": FRONT[0], "topic": uri, "forward_for": [{"session": FRONT[1]}], "exclude": [FRONT[2]]}
    message = [code, 1, details, uri, [[FRONT[3]], {"session": FRONT[1]}], {"publish_options": details}]
    if code in (36, 68, 8):
        message.insert(2, 1)
    octets = bytearray(DUMP[serializer](message))
    for _ in range(data.draw(st.integers(0, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    survive(serializer, bytes(octets[: data.draw(st.integers(0, len(octets)))]))


@given(serializers, st.binary(max_size=60))
@COMMON
def test_random_octets_are_survived(serializer: int, data: bytes) -> None:
    survive(serializer, data)


def test_messages_cut_at_every_octet_are_survived() -> None:
    details = {"publisher": FRONT[0], "topic": METAS[0], "forward_for": [{"session": FRONT[1]}], "exclude": [FRONT[2]]}
    for serializer in (JSON, MSGPACK, CBOR, UBJSON):
        octets = DUMP[serializer]([36, 1, 1, details, [[FRONT[3]], {"session": FRONT[1]}], {"session": FRONT[1]}])
        for end in range(len(octets)):
            survive(serializer, octets[:end])
