"""Cookies of WebSocket clients: who logged in once, and comes with the cookie, need not do it again (CookieTracker).

A cookie's value is a credential. It is known to the browser alone: here, in stores and in memory, it goes by a hash of
it (its *key*). Stores (:class:`Store`) keep what was proven with a login; a cookie without a login is kept nowhere.
"""

from proxy.cookies.records import Record, StoreError
from proxy.cookies.store import Store, Stores
from proxy.cookies.tracker import CookieTracker

__all__ = ["CookieTracker", "Record", "Store", "StoreError", "Stores"]
