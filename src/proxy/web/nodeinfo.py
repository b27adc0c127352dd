"""What a worker is and does, as a page for people, and as JSON for programs."""

import json
import os
import platform
from importlib.metadata import version
from typing import Any

from twisted.web.resource import Resource

from proxy import __version__
from proxy.lifecycle import State
from proxy.web.base import WebService
from proxy.web.nodeinfo_page import render
from proxy.web.pages import ErrorPage, answer_html

__all__ = ["NodeInfoService"]


class NodeInfoService(WebService):
    """Tells whoever asks what runs here. There are no addresses of routers, and nobody's name, in it."""

    TYPE = "nodeinfo"

    def __init__(self, site: Any, path: str, config: Any) -> None:
        super().__init__(site, path, config)
        self.resource = _NodeInfo(self)

    def collect(self) -> dict[str, Any]:
        """What there is to tell, in a form that JSON has."""
        controller: Any = self.site.controller
        stats = controller.get_proxy_stats()
        threads = stats["threads"]

        def total(*names: str) -> int:
            return sum(int(thread.get(name, 0)) for thread in threads for name in names)

        return {
            "product": "wamp-proxy",
            "version": __version__,
            "node": controller.node_id,
            "worker": stats["worker"],
            "pid": os.getpid(),
            "started": controller.started(),
            "uptime": stats["uptime"],
            "platform": f"{platform.system()} {platform.machine()}",
            "libraries": {
                "python": platform.python_version(),
                "twisted": version("twisted"),
                "autobahn": version("autobahn"),
            },
            "threads": len(threads),
            "sessions": stats["sessions"],
            "joined": sum(item["joined"] for item in stats["transports"].values()),
            "connections": total("connections"),
            "messages": {"to_routers": total("messages_to_back"), "to_clients": total("messages_to_front")},
            "octets": {"to_routers": total("octets_to_back"), "to_clients": total("octets_to_front")},
            "transports": [_transport(name, item, controller) for name, item in sorted(stats["transports"].items())],
            "routers": [_router(name, item) for name, item in sorted(stats["connections"].items())],
            "realms": [_realm(name, controller) for name in controller.routes.realms()],
            "paths": [{"path": path, "type": service.TYPE} for path, service in sorted(self.site.services().items())],
        }


def _transport(name: str, item: dict[str, Any], controller: Any) -> dict[str, Any]:
    return {
        "id": name,
        "type": controller.transports[name].model.type,
        "address": item["address"],
        "state": State(item["state"]).name.lower(),
        "connections": item["connections"],
        "sessions": item["sessions"],
    }


def _router(name: str, item: dict[str, Any]) -> dict[str, Any]:
    state = State(item["state"]).name.lower()
    if item["is_down"]:
        state = "unreachable"
    elif item["is_draining"]:
        state = "draining"
    return {"id": name, "state": state, "sessions": item["sessions"], "joined": item["joined"]}


def _realm(name: str, controller: Any) -> dict[str, Any]:
    routes = controller.routes.of_realm(name)
    roles = {role for route in routes for role in route.marshal()["config"]}
    return {"realm": name, "roles": sorted(roles), "sessions": sum(controller.routes.live(route) for route in routes)}


class _NodeInfo(Resource):
    def __init__(self, service: NodeInfoService) -> None:
        super().__init__()
        self._service = service

    def getChild(self, path: bytes, request: Any) -> Resource:
        return self if not path and not request.postpath else ErrorPage(404)

    def render_GET(self, request: Any) -> bytes:
        request.setHeader(b"cache-control", b"no-store")
        request.setHeader(b"vary", b"Accept")
        collected = self._service.collect()
        if _wants_json(request):
            request.setHeader(b"content-type", b"application/json; charset=utf-8")
            return json.dumps(collected, ensure_ascii=False).encode()
        seconds = request.args.get(b"refresh", [b""])[0]
        if seconds.isdigit() and len(seconds) < 5 and int(seconds):
            request.setHeader(b"refresh", seconds)
        return answer_html(request, render(collected, is_live=bool(seconds)))


def _wants_json(request: Any) -> bool:
    if request.args.get(b"format") == [b"json"]:
        return True
    accepted = request.getHeader(b"accept") or b""
    return b"application/json" in accepted and b"text/html" not in accepted
