"""What the WAMP session of an MQTT client sends, and what clients are told of it."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

pytest.importorskip("mqtt5")

from proxy.messages import MessageError
from proxy.mqtt.link import WampLink
from proxy.mqtt.reasons import reason_text
from proxy.web.longpoll_frames import MESSAGE_MAX


class End:
    """The connection to the data plane."""

    is_full = False

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)


@pytest.mark.parametrize("options", [{}, {"acknowledge": True}])
def test_a_message_that_no_frame_holds(options: dict[str, Any]) -> None:
    """It is refused: what is behind the length that a frame can tell would be messages that nobody has sent."""
    clock, end, owner = Clock(), End(), Any
    link = WampLink(clock, owner)  # type: ignore[arg-type]
    link.attach(end)  # type: ignore[arg-type]
    with pytest.raises(MessageError, match="octets"):
        link.publish(options, "a", [bytes(MESSAGE_MAX)])
    assert end.written == []
    assert clock.getDelayedCalls() == []
    link.publish(options, "a", [b"x"])
    assert len(end.written) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [("", None), ("not allowed", "not allowed"), ("a\0b\n\x1b[1m", "ab[1m"), ("ä" * 70_000, "ä" * 200)],
)
def test_what_clients_are_told(text: str, told: str | None) -> None:
    """A text that is none for MQTT, or more than a packet holds, would end the connection in place of the answer."""
    assert reason_text(text) == told
