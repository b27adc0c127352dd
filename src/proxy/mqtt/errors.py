"""What goes wrong between an MQTT client and here."""

import mqtt5

__all__ = ["MqttError"]


class MqttError(Exception):
    """The client's connection has to end (MQTT 5, section 4.13, "Handling errors").

    :ivar code: the reason, one of :class:`mqtt5.DisconnectReasonCode`.
    :ivar text: for people.
    """

    def __init__(self, code: mqtt5.DisconnectReasonCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
