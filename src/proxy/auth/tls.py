"""WAMP-TLS: the client has proven who it is with the certificate of its TLS connection.

The fingerprint is one of SHA-1, as Crossbar.io's configurations have it. A forger would need a second certificate with
the fingerprint of a given one, which nobody can make; two certificates with one fingerprint, which can be made, help
only whoever has both configured.
"""

from functools import partial
from typing import Any

from proxy.auth.base import Attempt, Decision, Deny, Outcome, failed
from proxy.auth.decoys import then
from proxy.auth.principals import Found, identity
from proxy.auth.sources import Source, StaticSource

__all__ = ["Tls"]


class Tls:
    """Accepts clients by their certificate, which TLS has verified.

    :param source: the principals. Those of the configuration have ``certificate-sha1``; which of them the client is,
        its certificate says. An authenticator is told the certificate.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._owners: dict[str, list[str]] | None = None
        if isinstance(source, StaticSource):
            self._owners = {}
            for authid, principal in source.principals.items():
                self._owners.setdefault(principal["certificate-sha1"], []).append(authid)

    def hello(self, attempt: Attempt) -> Outcome | None:
        """See :class:`proxy.auth.base.Method`.

        :returns: None without a certificate.
        """
        certificate = attempt.transport_details.get("peer_cert")
        if not certificate:
            return None
        authid = attempt.authid
        if self._owners is not None:
            owners = self._owners.get(_fingerprint(certificate), [])
            if authid not in owners:
                # What a client says of itself counts only where its certificate leaves a choice.
                authid = owners[0] if len(owners) == 1 else None
        found = self._source.find(attempt, "tls", authid, {})
        return then(found, partial(self._judge, attempt, authid))

    def _judge(self, attempt: Attempt, authid: str | None, found: Found) -> Decision:
        if found is None:
            return failed("tls: no principal has the client's certificate, or several have")
        if isinstance(found, Deny):
            return found
        return identity(
            found,
            attempt,
            authid=authid,
            authmethod="tls",
            authprovider=self._source.provider,
            default_role=self._source.default_role,
        )


def _fingerprint(certificate: Any) -> str:
    """SHA-1 of the certificate, in upper case without colons."""
    text = certificate.get("sha1") if isinstance(certificate, dict) else None
    return text.replace(":", "").upper() if isinstance(text, str) else ""
