"""WAMP messages in FlatBuffers for the tests: as autobahn builds them, and built by hand, well or badly."""

from __future__ import annotations

import random
import struct
from typing import Any

from support.gate import AUTOBAHN, FLATBUFFERS

# After support.gate, which has chosen the framework.
from autobahn.wamp import message, role  # isort: skip

CLIENT_ROLES = {"caller": role.RoleCallerFeatures()}
ROUTER_ROLES = {"dealer": role.RoleDealerFeatures()}
ID = 2**53 - 11


def messages() -> dict[str, message.Message]:
    """One message of every type, with as many attributes as autobahn can write."""
    payload: dict[str, Any] = {"args": [1, "a", ID], "kwargs": {"k": [None]}}
    caller = {"caller_authid": "joe", "caller_authrole": "user"}
    callee = {"callee_authid": "sue", "callee_authrole": "user", "progress": True}
    publisher = {"publisher_authid": "joe", "publisher_authrole": "user", "topic": "com.example.topic"}
    authids = {"exclude_authid": ["a", "bb"], "exclude_authrole": ["ccc"], "eligible_authid": ["d"]}
    forward_for = [{"session": 7, "authid": "x", "authrole": "y"}, {"session": 8, "authid": "x", "authrole": "y"}]
    made = [
        message.Hello("realm1", CLIENT_ROLES, authid="joe", authrole="user", resumable=True, resume_session=ID,
                      resume_token="t"),
        message.Welcome(ID, ROUTER_ROLES, realm="realm1", authid="joe", authrole="user", authprovider="static"),
        message.Abort("wamp.error.no_such_realm", "gone"),
        message.Challenge("wampcra", {}),
        message.Authenticate("signature", {}),
        message.Goodbye("wamp.close.normal", "bye", resumable=True),
        message.Error(48, 5, "com.example.error", **payload),
        message.Publish(1, "com.example.topic", acknowledge=True, exclude_me=False, exclude=[1, ID], eligible=[3],
                        eligible_authrole=["e"], retain=True, transaction_hash="h", **authids, **payload),
        message.Published(1, ID),
        message.Subscribe(1, "com.example.", match="prefix", get_retained=True),
        message.Subscribed(1, ID),
        message.Unsubscribe(1, ID),
        message.Unsubscribed(0, ID, "wamp.subscription.revoked"),
        message.Event(ID, 5, publisher=ID, retained=True, forward_for=forward_for, **publisher, **payload),
        message.EventReceived(ID),
        message.Call(1, "com.example.echo", timeout=5000, receive_progress=True, caller=ID, **caller, **payload),
        message.Cancel(1, "kill", forward_for=forward_for),
        message.Result(1, callee=ID, **callee, **payload),
        message.Register(1, "com.example.", match="wildcard", invoke="roundrobin", concurrency=3),
        message.Registered(1, ID),
        message.Unregister(1, ID),
        message.Unregistered(0, ID, "wamp.registration.revoked"),
        message.Invocation(1, ID, procedure="com.example.echo", timeout=5000, receive_progress=True, caller=ID,
                           **caller, **payload),
        message.Interrupt(1, "kill", "wamp.error.timeout", forward_for=forward_for),
        message.Yield(1, callee=ID, **callee, **payload),
    ]  # fmt: skip
    return {type(item).__name__: item for item in made}


def dump(item: message.Message) -> bytes:
    """The message in FlatBuffers."""
    item.uncache()
    return bytes(AUTOBAHN[FLATBUFFERS].serialize(item)[0])


def look(data: bytes) -> dict[str, Any]:
    """What autobahn reads of a message: every attribute, in plain values."""
    (item,) = AUTOBAHN[FLATBUFFERS].unserialize(data)
    names = {name for kind in type(item).__mro__ for name, value in vars(kind).items() if isinstance(value, property)}
    return {name: getattr(item, name) for name in sorted(names) if not name.startswith("correlation")}


# --- by hand ---------------------------------------------------------------------------------------------------------


class Builder:
    """Tables and vectors one behind the other; the offsets that lead to them are filled in at once."""

    def __init__(self, code: int) -> None:
        # root table at 12: vtable 8 octets before it, msg at 16, msg_type at 20
        self.data = bytearray(struct.pack("<IHHHHiIB3x", 12, 8, 12, 8, 4, 8, 0, code))
        self.root = 16

    def point(self, field: int) -> None:
        """Let the offset at ``field`` lead to what comes next."""
        self.data += bytes(-len(self.data) % 4)
        struct.pack_into("<I", self.data, field, len(self.data) - field)

    def table(self, at: int, fields: dict[int, tuple[str, Any]], slots: int | None = None) -> dict[int, int]:
        """A table that the offset at ``at`` leads to; where each field is, by slot.

        :param fields: by slot: struct format and value.
        """
        slots = max(fields, default=-1) + 1 if slots is None else slots
        size, offsets = 4, [0] * slots
        for slot, (form, _) in fields.items():
            offsets[slot] = size
            size += struct.calcsize("<" + form)
        self.data += bytes(-len(self.data) % 4)
        vtable = len(self.data)
        self.data += struct.pack(f"<HH{slots}H", 4 + 2 * slots, size, *offsets)
        self.point(at)
        start = len(self.data)
        self.data += struct.pack("<i", start - vtable)
        for form, value in fields.values():
            self.data += struct.pack("<" + form, value)
        return {slot: start + offsets[slot] for slot in fields}

    def vector(self, at: int, form: str, values: list[int] | bytes) -> int:
        """A vector that the offset at ``at`` leads to; where its first item is."""
        self.point(at)
        self.data += struct.pack("<I", len(values))
        first = len(self.data)
        for value in values:
            self.data += struct.pack("<" + form, value)
        return first

    def done(self) -> bytes:
        """The message."""
        return bytes(self.data)


def mutate(data: bytes, dice: random.Random) -> bytes:
    """The message with a few octets or offsets changed."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 3, 6))):
        at = dice.randrange(len(out))
        match dice.randrange(5):
            case 0:
                out[at] = dice.randrange(256)
            case 1:
                out[at] ^= 1 << dice.randrange(8)
            case 2:
                at &= ~3
                rest = len(out) - at
                value = dice.choice((0, 1, 4, 8, rest, max(rest - 4, 0), 2**31, 2**32 - 1, dice.randrange(64)))
                out[at : at + 4] = struct.pack("<I", value)[:rest]
            case 3:
                at &= ~1
                value = dice.choice((0, 4, 5, 6, 65535, dice.randrange(64)))
                out[at : at + 2] = struct.pack("<H", value)[: len(out) - at]
            case 4 if len(out) > 8:
                del out[dice.randrange(8, len(out)) :]
    return bytes(out)
