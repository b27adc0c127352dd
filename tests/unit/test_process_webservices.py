"""Services on the paths of web transports, of which this version has none."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.errors import ProxyError
from proxy.webservices import WebServiceProcedures
from support.planes import Rig

SERVICE = {"type": "json", "value": {}}


class Worker(WebServiceProcedures):
    def __init__(self) -> None:
        self.transports = Rig().controller.transports


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("start_web_transport_service", ("info", SERVICE)),
        ("stop_web_transport_service", ("info",)),
        ("get_web_transport_service", ("info",)),
        ("get_web_transport_services", ()),
    ],
)
@pytest.mark.parametrize(("transport", "text"), [("nope", 'no transport "nope"'), ("transport000", "rawsocket")])
def test_there_are_no_paths(name: str, arguments: tuple[Any, ...], transport: str, text: str) -> None:
    with pytest.raises(ProxyError, match=text) as caught:
        getattr(Worker(), name)(transport, *arguments)
    assert caught.value.uri == "crossbar.error.not_running"


@pytest.mark.parametrize("config", [None, "json", {}, [SERVICE]])
def test_a_service_without_a_type(config: Any) -> None:
    with pytest.raises(ProxyError) as caught:
        Worker().start_web_transport_service("nope", "info", config)
    assert caught.value.uri == "crossbar.invalid_argument"
