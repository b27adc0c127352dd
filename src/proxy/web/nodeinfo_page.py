"""The page about a worker: one file without scripts, for small and wide screens, bright and dark."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from string import Template
from typing import Any, Final

__all__ = ["render"]

_STYLE: Final = """
:root { --bg: #f5f7fa; --card: #fff; --line: #dfe5ec; --text: #1d2733; --dim: #64748b; --accent: #2563eb;
  --good: #059669; --warn: #d97706; --bad: #dc2626; }
@media (prefers-color-scheme: dark) { :root { --bg: #12161c; --card: #1b2129; --line: #2d3642; --text: #e2e8f0;
  --dim: #94a3b8; --accent: #60a5fa; --good: #34d399; --warn: #fbbf24; --bad: #f87171; } }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; background: var(--bg);
  color: var(--text); }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1rem 3rem; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: .2rem 1rem; margin-bottom: 1.5rem; }
h1 { font-size: 1.7rem; margin: 0; letter-spacing: -.02em; }
h1 small { font-weight: 400; font-size: 1rem; color: var(--dim); letter-spacing: 0; }
.who { color: var(--dim); overflow-wrap: anywhere; }
nav { margin-left: auto; display: flex; gap: 1rem; font-size: .9rem; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .8rem;
  margin-bottom: .8rem; }
.tile, section { background: var(--card); border: 1px solid var(--line); border-radius: .7rem; }
.tile { padding: .8rem 1rem; }
.tile b { display: block; font-size: 1.7rem; line-height: 1.25; font-variant-numeric: tabular-nums; font-weight: 650;
  white-space: nowrap; }
.tile span { color: var(--dim); font-size: .85rem; }
.tile i { font-style: normal; margin-left: -.2rem; font-size: 1rem; font-weight: 400; color: var(--dim); }
.flow { width: 100%; height: auto; display: block; }
.flow text { fill: var(--text); } .flow .dim { fill: var(--dim); }
.flow rect { fill: var(--bg); stroke: var(--line); } .flow .mid { stroke: var(--accent); }
.flow path { stroke: var(--dim); fill: none; } .flow .tip { fill: var(--dim); stroke: none; }
section { padding: 1rem 1.1rem; margin-bottom: .8rem; }
h2 { font-size: 1rem; margin: 0 0 .5rem; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0 .8rem; }
.two section { min-width: 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th { text-align: left; font-weight: 500; color: var(--dim); font-size: .82rem; }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
th:last-child, td:last-child { padding-right: 0; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; width: 1%; }
td.s { width: 1%; }
td { overflow-wrap: break-word; } td small { color: var(--dim); } td i { font-style: normal; color: var(--dim); }
td code { display: block; color: var(--dim); }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, monospace; overflow-wrap: anywhere; }
.pill { display: inline-block; padding: 0 .55rem; border-radius: 1rem; font-size: .8rem; white-space: nowrap;
  border: 1px solid currentColor; }
.pill::before { content: ""; display: inline-block; width: .45rem; height: .45rem; margin-right: .35rem;
  border-radius: 50%; background: currentColor; vertical-align: .08rem; }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); }
.role { display: inline-block; padding: 0 .45rem; margin: 0 .25rem .2rem 0; border-radius: .3rem; background: var(--bg);
  border: 1px solid var(--line); font-size: .82rem; }
@media (max-width: 34rem) { .wide { display: none; } .tiles { grid-template-columns: 1fr 1fr; }
  section { padding: .9rem; } table { font-size: .85rem; } th, td { padding-right: .5rem; }
  td { overflow-wrap: anywhere; } .pill { font-size: .74rem; padding: 0 .4rem; } }
.none { color: var(--dim); margin: 0; }
footer { color: var(--dim); font-size: .85rem; margin-top: 1.2rem; }
"""

_PAGE: Final = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
<header><h1>wamp-proxy <small>$version</small></h1><span class="who">$who</span><nav>$links</nav></header>
<div class="tiles">$tiles</div>
<section class="wide">$flow</section>
<section><h2>Ways in</h2>$transports</section>
<div class="two">
<section><h2>Routers</h2>$routers</section>
<section><h2>Realms</h2>$realms</section>
</div>
<section><h2>On this address</h2>$paths</section>
<footer>$footer</footer>
</main>
</body>
</html>
""")

_FLOW: Final = Template("""<svg class="flow" viewBox="0 0 900 124" role="img" aria-label="$label">
<g stroke-width="1.5"><rect x="2" y="22" width="190" height="80" rx="10"/>
<rect class="mid" x="355" y="8" width="190" height="108" rx="10"/>
<rect x="708" y="22" width="190" height="80" rx="10"/>
<path d="M202 50H337M345 76H210M555 50H690M698 76H563"/></g>
<path class="tip" d="M345 50l-10 -5v10zM202 76l10 -5v10zM698 50l-10 -5v10zM555 76l10 -5v10z"/>
<g text-anchor="middle" font-size="22" font-weight="600">
<text x="97" y="62">$clients</text><text x="450" y="58">$sessions</text><text x="803" y="62">$routers</text></g>
<g text-anchor="middle" font-size="14">
<text class="dim" x="97" y="86">$clients_word</text><text class="dim" x="450" y="82">$sessions_word</text>
<text class="dim" x="803" y="86">$routers_word</text>
<text class="dim" x="273" y="41">$up</text><text class="dim" x="273" y="96">$down</text>
<text class="dim" x="627" y="41">$up</text><text class="dim" x="627" y="96">$down</text></g>
</svg>""")

_STATES: Final = {"started": ("good", "up"), "unreachable": ("bad", "unreachable"), "failed": ("bad", "failed")}


def render(info: Mapping[str, Any], *, is_live: bool) -> bytes:
    """The page.

    :param info: see :meth:`proxy.web.nodeinfo.NodeInfoService.collect`.
    :param is_live: it comes anew by itself.
    """
    worker, node = str(info["worker"]), str(info["node"])
    live = '<a href="?">stop refreshing</a>' if is_live else '<a href="?refresh=5">live</a>'
    page = _PAGE.substitute(
        title=escape(f"{worker} - wamp-proxy"),
        style=_STYLE,
        version=escape(info["version"]),
        who=f"worker <b>{escape(worker)}</b> on <b>{escape(node)}</b>",
        links=f'{live}<a href="?format=json">JSON</a>',
        tiles=_tiles(info),
        flow=_flow(info),
        transports=_transports(info["transports"]),
        routers=_routers(info["routers"]),
        realms=_realms(info["realms"]),
        paths=_paths(info["paths"]),
        footer=_footer(info),
    )
    return page.encode("utf-8")


def _tiles(info: Mapping[str, Any]) -> str:
    messages = sum(info["messages"].values())
    octets = sum(info["octets"].values())
    tiles = [
        (_count(info["sessions"]), "sessions now"),
        (_count(info["joined"]), "sessions ever"),
        (_count(messages), "messages relayed"),
        (_size(octets), "relayed"),
        (_duration(info["uptime"]), "in service"),
    ]
    return "".join(f'<div class="tile"><b>{value}</b><span>{label}</span></div>' for value, label in tiles)


def _flow(info: Mapping[str, Any]) -> str:
    clients = sum(item["connections"] for item in info["transports"])
    routers, sessions = len(info["routers"]), info["sessions"]
    up, down = info["messages"]["to_routers"], info["messages"]["to_clients"]
    words = [_word(clients, "client"), _word(sessions, "session"), _word(routers, "router")]
    return _FLOW.substitute(
        label=f"{clients} {words[0]}, {sessions} {words[1]}, {routers} {words[2]}",
        clients=_plain_count(clients),
        sessions=_plain_count(sessions),
        routers=_plain_count(routers),
        clients_word=words[0],
        sessions_word=words[1],
        routers_word=words[2],
        up=f"{_plain_count(up)} {_word(up, 'message')}",
        down=f"{_plain_count(down)} {_word(down, 'message')}",
    )


def _transports(items: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        f"<tr><td>{escape(item['id'])} <small>{escape(item['type'])}</small><code>{escape(item['address'])}</code></td>"
        f'<td class="n">{_count(item["connections"])}</td><td class="n">{_count(item["sessions"])}</td>'
        f'<td class="s">{_pill(item["state"])}</td></tr>'
        for item in items
    )
    return _table(("transport", "#clients", "#sessions", "state"), rows)


def _routers(items: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        f'<tr><td>{escape(item["id"])}</td><td class="n">{_count(item["sessions"])}</td>'
        f'<td class="n">{_count(item["joined"])}</td><td class="s">{_pill(item["state"])}</td></tr>'
        for item in items
    )
    return _table(("connection", "#sessions", "#ever", "state"), rows)


def _realms(items: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        f"<tr><td>{escape(item['realm'])}</td><td>{_roles(item['roles'])}</td>"
        f'<td class="n">{_count(item["sessions"])}</td></tr>'
        for item in items
    )
    return _table(("realm", "roles", "#sessions"), rows)


def _roles(roles: Iterable[str]) -> str:
    return "".join(f'<span class="role">{escape(role)}</span>' for role in roles)


def _paths(items: Sequence[Mapping[str, Any]]) -> str:
    rows = (
        f'<tr><td><a href="{escape(_href(item["path"]))}">{escape(_href(item["path"]))}</a></td>'
        f"<td>{escape(item['type'])}</td></tr>"
        for item in items
    )
    return _table(("path", "service"), rows)


def _href(path: str) -> str:
    return path if path == "/" else f"/{path}"


def _footer(info: Mapping[str, Any]) -> str:
    libraries = " · ".join(f"{name.capitalize()} {version}" for name, version in info["libraries"].items())
    threads = f"{info['threads']} data {_word(info['threads'], 'thread')}"
    text = f"process {info['pid']}, {threads}, since {info['started']} · {info['platform']} · {libraries}"
    return escape(text)


# --- pieces ---


def _table(titles: Sequence[str], rows: Iterable[str]) -> str:
    """A table; titles of numbers begin with ``#``."""
    body = "".join(rows)
    if not body:
        return '<p class="none">none</p>'
    heads = "".join(f'<th class="n">{name[1:]}</th>' if name.startswith("#") else f"<th>{name}</th>" for name in titles)
    return f'<div class="scroll"><table><tr>{heads}</tr>{body}</table></div>'


def _pill(state: str) -> str:
    kind, text = _STATES.get(state, ("warn", state))
    return f'<span class="pill {kind}">{escape(text)}</span>'


def _word(number: int, word: str) -> str:
    return word if number == 1 else f"{word}s"


def _scaled(number: float, base: int, units: Sequence[str]) -> tuple[str, str]:
    """Three digits, and a unit."""
    index = 0
    while number >= base and index < len(units) - 1:
        number /= base
        index += 1
    if index == 0:
        return str(int(number)), units[0]
    # Whatever would be rounded up to the next unit is cut instead.
    digits = 2 if number < 10 else 1 if number < 100 else 0
    cut = int(number * 10**digits) / 10**digits
    return f"{cut:.{digits}f}", units[index]


def _plain_count(number: int) -> str:
    if number < 10_000:
        return str(number)
    value, unit = _scaled(number, 1000, ("", "k", "M", "G", "T"))
    return f"{value} {unit}"


def _count(number: int) -> str:
    value, _, unit = _plain_count(number).partition(" ")
    return f"{value} <i>{unit}</i>" if unit else value


def _size(octets: int) -> str:
    value, unit = _scaled(octets, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))
    return f"{value} <i>{unit}</i>"


def _duration(seconds: float) -> str:
    """The two largest units."""
    rest = int(seconds)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        amount, rest = divmod(rest, size)
        if amount or (unit == "s" and not parts):
            parts.append(f"{amount} <i>{unit}</i>")
    return " ".join(parts[:2])
