"""Resources for Twisted Web of the operator's own."""

from importlib import import_module
from typing import Any

from twisted.web.resource import IResource

from proxy.config.web import ResourceConfig
from proxy.errors import ClassImportFailed
from proxy.web.base import WebService

__all__ = ["ResourceService"]


class ResourceService(WebService):
    """Has an object of the operator's answer."""

    TYPE = "resource"
    TAKES_FORMS = True

    def __init__(self, site: Any, path: str, config: ResourceConfig) -> None:
        super().__init__(site, path, config)
        self.resource = _make(config)


def _make(config: ResourceConfig) -> IResource:
    """:raises ClassImportFailed: there is no such class, or it makes no resource."""
    module_name, _, name = config.classname.rpartition(".")
    try:
        made = getattr(import_module(module_name), name)(config.extra)
    except Exception as error:
        text = f'classname: "{config.classname}": cannot be imported and called: {type(error).__name__}: {error}'
        raise ClassImportFailed(text) from error
    if not IResource.providedBy(made):
        raise ClassImportFailed(f'classname: "{config.classname}": made {type(made).__name__}, which is no resource')
    resource: IResource = made
    return resource
