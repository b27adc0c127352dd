"""Writes what a run measured: latest.json, latest.md, and a plot as PNG and SVG."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from scenarios import COSTS, METHODS, NOT_MEASURABLE, Cost

Results = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A ratio to reach: figure of ours divided by the peer's, within each round."""

    scenario: str
    figure: str
    peer: str | None  # None: the figure itself, not a ratio
    limit: float
    at_most: bool
    text: str


TARGETS = (
    Target("calls-10x16", "cpu_us", "haproxy", 0.9, True, "CPU per call, 10 sessions x 16 in flight"),
    Target("calls-10x16", "cpu_us", "crossbar", 0.02, True, "CPU per call, 10 sessions x 16 in flight"),
    Target("calls-200x1", "cpu_us", "haproxy", 0.8, True, "CPU per call, 200 sessions x 1 in flight"),
    Target("calls-1x1", "p50", "haproxy", 1.0, True, "p50 latency, 1 session x 1 in flight"),
    Target("calls-64k", "cpu_us", "haproxy", 1.0, True, "CPU per call, 64 KiB"),
    Target("logins", "per_second", "crossbar", 40, False, "logins per second"),
    Target("idle", "rss_per_session_kib", None, 8, True, "KiB of resident memory per idle session"),
    *(Target(f"logins-{m}", "per_second", "crossbar", 40, False, f"logins per second, {m}") for m in METHODS),
    Target("tls-calls-10x16", "cpu_us", "haproxy-tls", 1.2, True, "CPU per call over TLS, 10 sessions x 16 in flight"),
    Target("tls-calls-200x1", "cpu_us", "haproxy-tls", 1.2, True, "CPU per call over TLS, 200 sessions x 1 in flight"),
    Target("tls-calls-64k", "cpu_us", "haproxy-tls", 1.2, True, "CPU per call over TLS, 64 KiB"),
    *(
        Target(f"tls-handshakes-{name}", "per_cpu_second", "haproxy-tls", 0.8, False, f"TLS handshakes/s, {text}")
        for name, text in (
            ("ecdsa", "full, ECDSA P-256"),
            ("ecdsa-resumed", "resumed, ECDSA P-256"),
            ("rsa", "full, RSA-2048"),
            ("rsa-resumed", "resumed, RSA-2048"),
        )
    ),
    Target("storm", "not_joined", None, 0, True, "storm: clients that were refused, lost or not served"),
    Target("storm", "p99_ratio", None, 3, True, "storm: p99 of sessions already joined, by that before"),
)

#: Whom a target compares, by its peer: the way to the router is TCP for both, a Unix socket for both, or one of each.
PAIRS: dict[str | None, tuple[tuple[str, str | None], ...]] = {
    "haproxy": (("ours", "haproxy"), ("ours-unix", "haproxy-unix"), ("ours-unix", "haproxy")),
    "haproxy-tls": (("ours-tls", "haproxy-tls"), ("ours-tls-unix", "haproxy-tls-unix")),
    "crossbar": (("ours-asserting", "crossbar"), ("ours-unix", "crossbar"), ("ours", "crossbar")),
    None: (("ours-asserting", None), ("ours", None)),
}


LATENCIES = ("mean", "p50", "p90", "p99", "p99_9", "max")


def pick(result: dict[str, Any], figure: str) -> float | None:
    """One figure of one round."""
    value = result["latency_us"][figure] if figure in LATENCIES else result.get(figure)
    return None if value is None else float(value)


def values(results: Results, scenario: str, peer: str, figure: str) -> list[float]:
    """One figure, all rounds that brought it."""
    rounds = results["data"].get(scenario, {}).get(peer, [])
    return [v for v in (pick(r, figure) for r in rounds) if v is not None]


def middle(results: Results, scenario: str, peer: str, figure: str) -> float | None:
    """Median over the rounds."""
    found = values(results, scenario, peer, figure)
    return median(found) if found else None


def ratios(results: Results, scenario: str, figure: str, mine: str, other: str) -> list[float]:
    """mine / other, round by round."""
    pairs = zip(values(results, scenario, mine, figure), values(results, scenario, other, figure), strict=False)
    return [a / b for a, b in pairs if b]


def number(value: float | None) -> str:
    """Three significant digits, thousands grouped."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(header: list[str], rows: list[list[str]], texts: int = 1) -> str:
    """A Markdown table; the first `texts` columns are text, the rest figures."""
    lines = ["| " + " | ".join(header) + " |", "|---" * texts + "|---:" * (len(header) - texts) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def targets(results: Results) -> list[dict[str, Any]]:
    """What was to be reached and what was, as far as this run measured it."""
    found = []
    for t in TARGETS:
        for mine, other in PAIRS[t.peer]:
            if other is None:
                got = values(results, t.scenario, mine, t.figure)
            else:
                got = ratios(results, t.scenario, t.figure, mine, other)
            if not got:
                continue
            value = median(got)
            reached = value <= t.limit if t.at_most else value >= t.limit
            found.append(
                {"text": t.text, "ours": mine, "against": other, "limit": t.limit, "at_most": t.at_most}
                | {"median": round(value, 4), "reached": reached, "rounds": [round(v, 4) for v in got]}
            )
    return found


def targets_table(results: Results) -> str:
    """The targets as Markdown."""
    labels = {name: about["label"] for name, about in results["peers"].items()}
    rows = []
    for t in targets(results):
        spread = f"{min(t['rounds']):.3g} .. {max(t['rounds']):.3g}"
        limit = f"{'<=' if t['at_most'] else '>='} {t['limit']:g}"
        who = labels[t["ours"]] + (f" / {labels[t['against']]}" if t["against"] else "")
        rows.append([t["text"], who, limit, f"{t['median']:.3g}", spread, "yes" if t["reached"] else "**no**"])
    return table(["", "who", "to reach", "median", "rounds", "reached"], rows, texts=2) if rows else ""


def calls_table(results: Results, scenario: str) -> str:
    """Throughput, CPU, latency and system calls of one scenario."""
    rows = []
    for peer, about in peers_of(results, scenario):

        def at(figure: str, peer: str = peer) -> float | None:
            return middle(results, scenario, peer, figure)

        against = ratios(results, scenario, "cpu_us", peer, results["scenarios"][scenario].get("base") or "haproxy")
        share = at("cpu_share") if at("cpu_us") else None
        rows.append(
            [
                about["label"],
                number(at("per_second")),
                number(at("cpu_us")),
                number(median(against) if against else None),
            ]
            + [number(at(p)) for p in ("p50", "p99", "p99_9")]
            + [number(results["syscalls_per_call"].get(scenario, {}).get(peer))]
            + ["-" if share is None else f"{share:.0%}"]
        )
    header = [
        "",
        "calls/s",
        "CPU us/call",
        "x HAProxy",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "system calls/call",
        "of its core",
    ]
    return table(header, rows)


def logins_table(results: Results, scenario: str) -> str:
    """Logins per second and what one costs."""
    rows = []
    for peer, about in peers_of(results, scenario):
        cpu = middle(results, scenario, peer, "cpu_us")
        latency = [middle(results, scenario, peer, p) for p in ("p50", "p99")]
        rows.append(
            [about["label"], number(middle(results, scenario, peer, "per_second")), number(cpu and cpu / 1e3)]
            + [number(v and v / 1e3) for v in latency]
        )
    return table(["", "logins/s", "CPU ms/login", "p50 ms", "p99 ms"], rows)


def handshakes_table(results: Results, scenario: str) -> str:
    """TLS handshakes: how many came out of this chain, what one costs, and what a core that does nothing else makes."""
    base = results["scenarios"][scenario]["base"]
    rows = []
    for peer, about in peers_of(results, scenario):
        figures = ("per_second", "cpu_us", "per_cpu_second")
        rate, cpu, capacity = (middle(results, scenario, peer, f) for f in figures)
        against = ratios(results, scenario, "per_cpu_second", peer, base)
        rows.append([about["label"], number(rate), number(cpu), number(capacity)])
        rows[-1] += [number(median(against) if against else None)]
        rows[-1] += [number(v and v / 1e3) for v in (middle(results, scenario, peer, p) for p in ("p50", "p99"))]
        share = middle(results, scenario, peer, "cpu_share")
        rows[-1] += ["-" if share is None else f"{share:.0%}"]
    header = ["", "handshakes/s", "CPU us/handshake", "handshakes/s of CPU", "x HAProxy", "p50 ms", "p99 ms"]
    return table([*header, "of its core"], rows)


def idle_table(results: Results, scenario: str) -> str:
    """Memory per idle session."""
    rows = [
        [about["label"]]
        + [number(middle(results, scenario, peer, f)) for f in ("rss_per_session_kib", "sessions")]
        + [number((middle(results, scenario, peer, "rss_before_kib") or 0) / 1024)]
        for peer, about in peers_of(results, scenario)
    ]
    return table(["", "KiB per session", "sessions held", "MiB before"], rows)


def storm_table(results: Results, scenario: str) -> str:
    """How the clients of a storm were served, and what others felt of it, in the round that took the median time."""
    rows, felt = [], []
    for peer, about in peers_of(results, scenario):
        rounds = sorted(results["data"][scenario][peer], key=lambda r: sum(w["seconds"] for w in r["waves"]))
        result = rounds[len(rounds) // 2]
        for text, wave in zip(("connect", "reconnect"), result["waves"], strict=True):
            away = wave["refused"] + wave["lost"] + wave["unfinished"]
            rows.append([about["label"], text, number(wave["sessions"]), str(away), number(wave["seconds"])])
            rows[-1] += [number(wave[f]) for f in ("per_second", "slowest", "fastest", "idle_seconds")]
            rows[-1] += [number(wave["latency_us"]["p50"] / 1e6), number(wave["cpu_us"] and wave["cpu_us"] / 1e3)]
            rows[-1] += [number(wave["peak_kib"] / 1024)]
        felt.append([about["label"]])
        for name in ("before", "connect", "held after connect", "reconnect", "after"):
            felt[-1] += [number(result["periods"][name]["latency_us"]["p99"] / 1e3)]
        felt[-1] += [number(result["p99_ratio"]), number(result["rss_before_kib"] / 1024)]
        felt[-1] += [number(result["rss_after_kib"] / 1024)]
    served = ["", "wave", "clients", "not joined", "s to the last", "logins/s", "slowest tenth", "fastest tenth"]
    served += ["s without any", "p50 s to log in", "CPU ms/login", "peak MiB"]
    others = ["p99 ms of calls of others", "before", "connect", "held", "reconnect", "after", "worst / before"]
    others += ["MiB before", "MiB after"]
    return table(served, rows, texts=2) + "\n\n" + table(others, felt)


def feature_table(results: Results, scenario: str) -> str:
    """What the ways of a scenario cost, each by the first."""
    about = results["scenarios"][scenario]
    rows = []
    for way, text in about["ways"].items():
        against = ratios(results, scenario, "cpu_us", way, about["base"])
        found = [middle(results, scenario, way, f) for f in ("per_second", "cpu_us", "octets", "p50", "cpu_share")]
        rate, cpu, octets, p50, share = found
        rows.append([text["label"], number(rate), number(cpu), number(median(against) if against else None)])
        rows[-1] += [number(octets), number(p50), "-" if share is None else f"{share:.0%}"]
    unit = about["unit"]
    header = ["", f"{unit}s/s", f"CPU us/{unit}", "x first", f"octets/{unit} at the client", "p50 us", "of its core"]
    return table(header, rows)


# --- what each feature costs ---------------------------------------------------------------------------------------


def cost(results: Results, c: Cost) -> dict[str, Any] | None:
    """One row; None when this run did not measure it.

    `ratio`: as measured. `concerned`: the same if the whole difference falls on the messages that the feature concerns.
    """
    measured = ratios(results, c.scenario, "cpu_us", c.way, c.base)
    if not measured:
        return None
    concerned = [1 + (r - 1) / c.concerned for r in measured]
    reached = None if c.limit is None else median(concerned) <= c.limit
    return {
        "feature": c.feature,
        "work": c.work,
        "unit": results["scenarios"][c.scenario]["unit"],
        "base_us": middle(results, c.scenario, c.base, "cpu_us"),
        "us": middle(results, c.scenario, c.way, "cpu_us"),
        "base_octets": middle(results, c.scenario, c.base, "octets"),
        "octets": middle(results, c.scenario, c.way, "octets"),
        "ratio": round(median(measured), 4),
        "concerned": round(median(concerned), 4),
        "share": round(c.concerned, 3),
        "rounds": [round(r, 4) for r in measured],
        "limit": c.limit,
        "reached": reached,
    }


def costs(results: Results) -> list[dict[str, Any]]:
    """All rows that this run measured."""
    return [row for row in (cost(results, c) for c in COSTS) if row]


def costs_table(results: Results) -> str:
    """The costs as Markdown."""
    rows = []
    for c in costs(results):
        spread = f"{min(c['rounds']):.3g} .. {max(c['rounds']):.3g}"
        verdict = "" if c["reached"] is None else "yes" if c["reached"] else "**no**"
        concerned = f"{c['concerned']:.3g}" if c["share"] < 1 else ""
        cpu, octets = (f"{number(c['base_' + figure])} -> {number(c[figure])}" for figure in ("us", "octets"))
        limit = "" if c["limit"] is None else f"<= {c['limit']:g}"
        measured = [cpu, f"{c['ratio']:.3g}", spread, concerned, octets]
        rows.append([c["feature"], c["work"], c["unit"], *measured, limit, verdict])
    header = ["feature", "work", "per", "CPU us", "x", "rounds", "x, messages concerned", "octets at the client"]
    return table([*header, "to reach", "reached"], rows, texts=3) if rows else ""


COSTS_TEXT = (
    "CPU of the proxy without and with the feature, per what is counted, with all messages that belong to it. Without: "
    "a plain relay; for translation our own relay of the same messages untranslated; Crossbar.io's proxy where it is "
    "named. Ratios are taken within a round. *x, messages concerned*: where only some of the messages hold session "
    "IDs, the whole difference is counted as theirs, and the limit is for them. "
    f"Where nothing is to be measurable the limit is {NOT_MEASURABLE:g}; the first rows tell how far two processes of "
    "the very same set-up differ."
)


def peers_of(results: Results, scenario: str) -> list[tuple[str, dict[str, Any]]]:
    """The peers that took part in a scenario, in the order of the table."""
    return [(name, about) for name, about in results["peers"].items() if results["data"][scenario].get(name)]


TABLES: dict[str, Callable[[Results, str], str]] = {
    "calls": calls_table,
    "logins": logins_table,
    "handshakes": handshakes_table,
    "idle": idle_table,
    "storm": storm_table,
    "feature": feature_table,
}

PLACEMENT = {
    "split": "what is measured has the first core to itself, load generator and stand-in router share the others",
    "one": "everything shares one core",
    "free": "the kernel places everything",
}


def markdown(results: Results) -> str:
    """The whole report."""
    m = results["machine"]
    quick = "; QUICK run: a second at most per figure, not for publication" if results["quick"] else ""
    virtual = " (virtual machine)" if m["virtual"] else ""
    about = (
        f"{results['taken']}; {results['rounds']} interleaved round(s), medians{quick}. "
        f"{m['cpu']}, {m['cores']} cores{virtual}, {m['memory_gib']} GiB, {m['kernel']}, Python {m['python']}. "
        f"Placement: {PLACEMENT[results['placement']]}. How each figure is taken: bench/README.md."
    )
    parts = ["# wamp-proxy side by side", about, disturbance(results)]
    reached = targets_table(results)
    if reached:
        parts += [
            "## Targets",
            "Ratios, taken within a round. *Unix*: the way to the router is a Unix socket, else TCP.",
            reached,
        ]
    features = costs_table(results)
    if features:
        parts += ["## What each feature costs", COSTS_TEXT, features]
    for name, scenario in results["scenarios"].items():
        parts += [f"## {name}: {scenario['text']}", TABLES[scenario["kind"]](results, name)]
    parts += [
        "## Set-up",
        "\n".join(f"- {p['label']} ({p['version']}): {p['setup']}" for p in results["peers"].values()),
    ]
    if results["missing"]:
        parts.append("\n".join(f"- {name}: LEFT OUT, {why}" for name, why in results["missing"].items()))
    return "\n\n".join(filter(None, parts)) + "\n"


def disturbance(results: Results) -> str:
    """How much the rest of the machine did meanwhile: figures taken beside other work are worth less."""
    shares = [
        r["other_cpu_share"]
        for by_peer in results["data"].values()
        for rounds in by_peer.values()
        for r in rounds
        if r.get("other_cpu_share") is not None
    ]
    if not shares:
        return ""
    return f"Other work on the machine took {median(shares):.0%} of one core (median), {max(shares):.0%} at most."


# --- plot ---------------------------------------------------------------------------------------------------------

COLOURS = {"ours": "#1b6ca8", "ours-unix": "#6aa5d0", "haproxy": "#7a9e3b", "haproxy-unix": "#b5cf85"}
COLOURS |= {"ours-asserting": "#3f87bd", "nginx": "#b7b7b7", "crossbar": "#d1822f", "none": "#dddddd"}
COLOURS |= {f"{name}-tls": COLOURS[name] for name in ("ours", "haproxy", "nginx", "crossbar")}
COLOURS |= {f"{name}-tls-unix": COLOURS[f"{name}-unix"] for name in ("ours", "haproxy")}
PANELS = {"calls": ("cpu_us", "CPU us per call"), "logins": ("per_second", "logins per second")}
PANELS["handshakes"] = ("per_cpu_second", "TLS handshakes per second of CPU")
PANELS["idle"] = ("rss_per_session_kib", "KiB per idle session")


def plot(results: Results, folder: Path) -> bool:
    """One panel per scenario with a bar for each peer; False when matplotlib is not installed, or there is no bar."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "wamp-proxy"  # the same figures give the same file
    from matplotlib import pyplot

    names = [n for n, about in results["scenarios"].items() if results["data"][n] and about["kind"] in PANELS]
    rows = [c for c in costs(results) if "Crossbar.io" not in c["feature"]]
    if not names and not rows:
        return False
    columns = min(3, len(names)) or 1
    lines = -(-len(names) // columns)
    heights = [2.5] * lines + ([0.8 + 0.22 * len(rows)] if rows else [])
    figure = pyplot.figure(figsize=(4.2 * max(columns, 2), sum(heights)))
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    for i, name in enumerate(names):
        panel(figure.add_subplot(grid[i // columns, i % columns]), results, name)
    if rows:
        costs_panel(figure.add_subplot(grid[-1, :]), rows)
    figure.tight_layout()
    figure.savefig(folder / "latest.png", dpi=120, metadata={"Software": None})
    figure.savefig(folder / "latest.svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    return True


def cut(lengths: list[float]) -> float:
    """Where the axis of a panel ends: one bar that dwarfs all others is cut off, so that those can be compared."""
    ordered = sorted(lengths)
    if len(ordered) > 1 and ordered[-1] > 3 * ordered[-2]:
        return 1.3 * ordered[-2]
    return ordered[-1] if ordered else 1.0


def panel(axis: Any, results: Results, name: str) -> None:
    """The bars of one scenario."""
    figure, title = PANELS[results["scenarios"][name]["kind"]]
    bars = [(p, about["label"], middle(results, name, p, figure) or 0) for p, about in peers_of(results, name)]
    bars = [b for b in reversed(bars) if b[2]]
    end = cut([b[2] for b in bars])
    drawn = axis.barh([b[1] for b in bars], [min(b[2], end) for b in bars], color=[COLOURS[b[0]] for b in bars])
    labels = [number(b[2]) + (" (cut off)" if b[2] > end else "") for b in bars]
    axis.bar_label(drawn, labels, padding=3, fontsize=8)
    axis.set_xlim(0, end * 1.35)
    axis.set_title(f"{name}: {title}", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.tick_params(axis="x", bottom=False, labelbottom=False)  # the bars carry their values
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def costs_panel(axis: Any, rows: list[dict[str, Any]]) -> None:
    """The costs of features, as ratios."""
    shown = list(reversed(rows))
    texts = [f"{c['feature'].replace('`', '')}: {c['work']}" for c in shown]
    end = cut([c["ratio"] for c in shown])
    drawn = axis.barh(texts, [min(c["ratio"], end) for c in shown], color=COLOURS["ours"])
    labels = [f"{c['ratio']:.3g}" + (" (cut off)" if c["ratio"] > end else "") for c in shown]
    axis.bar_label(drawn, labels, padding=3, fontsize=8)
    axis.axvline(1, color="#444444", linewidth=0.8)
    axis.set_xlim(0, end * 1.2)
    axis.set_title("what each feature costs: CPU with it by CPU without it", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.tick_params(axis="x", bottom=False, labelbottom=False)
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def write(results: Results, folder: Path) -> None:
    """All files, into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    results["targets"] = targets(results)
    results["costs"] = costs(results)
    (folder / "latest.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = markdown(results)
    if plot(results, folder):
        text += "\n![the same as bars](latest.svg)\n"
    else:
        print("no plot: there is nothing to plot, or matplotlib is not installed")
    (folder / "latest.md").write_text(text, encoding="utf-8")
