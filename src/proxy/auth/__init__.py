"""Who is the client, and who is the proxy? Authentication on both sides.

Clients: one module per WAMP authentication method; a method looks at what the client says and decides. It changes
neither the configuration, which all clients of a transport share, nor the client's own dicts. Routers: one module per
way in which the proxy logs in there for its clients.
"""

from proxy.auth.base import Accept, Attempt, Challenge, Decision, Deny, Method, Outcome, PassThrough
from proxy.auth.methods import METHODS, Authentication

__all__ = [
    "METHODS",
    "Accept",
    "Attempt",
    "Authentication",
    "Challenge",
    "Decision",
    "Deny",
    "Method",
    "Outcome",
    "PassThrough",
]
