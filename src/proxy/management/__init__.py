"""The management API: procedures and events, and the ways on which they travel."""

from proxy.management.opening import Management, open_management

__all__ = ["Management", "open_management"]
