"""Which class serves which type of service. Modules are imported when the first service of their type is made."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from proxy.errors import FeatureUnavailable
from proxy.web.base import WebService

if TYPE_CHECKING:
    from proxy.web.site import WebSite

__all__ = ["SERVICES", "create"]

SERVICES: Final[dict[str, str]] = {
    "archive": "proxy.web.archive:ArchiveService",
    "caller": "proxy.web.caller:CallerService",
    "cgi": "proxy.web.cgi:CgiService",
    "json": "proxy.web.json:JsonService",
    "longpoll": "proxy.web.longpoll:LongPollService",
    "nodeinfo": "proxy.web.nodeinfo:NodeInfoService",
    "none": "proxy.web.none:NoneService",
    "path": "proxy.web.path:PathService",
    "publisher": "proxy.web.publisher:PublisherService",
    "redirect": "proxy.web.redirect:RedirectService",
    "resource": "proxy.web.resource:ResourceService",
    "reverseproxy": "proxy.web.reverseproxy:ReverseProxyService",
    "static": "proxy.web.static:StaticService",
    "webhook": "proxy.web.webhook:WebhookService",
    "websocket": "proxy.web.websocket:WebSocketService",
    "websocket-reverseproxy": "proxy.web.websocket_reverseproxy:WebSocketReverseProxyService",
    "wsgi": "proxy.web.wsgi:WsgiService",
}
"""Type of a service -> module and class. Types that are known and not supported are refused with the configuration."""


def create(site: "WebSite", path: str, config: Any) -> WebService:
    """Make a service, which is not started.

    :param site: of its transport.
    :param path: from the root, see :class:`WebService`.
    :param config: its item of the configuration, checked: one of :data:`proxy.config.web.WebServiceConfig`.
    :raises FeatureUnavailable: something that it needs is not installed.
    """
    module_name, _, class_name = SERVICES[config.type].partition(":")
    try:
        service_class: type[WebService] = getattr(import_module(module_name), class_name)
    except ImportError as error:
        missing = error.name or str(error)
        raise FeatureUnavailable(f"web services of type {config.type} need {missing}: not installed") from error
    return service_class(site, path, config)
