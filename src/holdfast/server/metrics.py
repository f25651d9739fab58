"""
How is this process doing, in the text format that Prometheus reads?
"""

from __future__ import annotations

from holdfast.server.opened import OpenHub

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(opened: OpenHub) -> str:
    """Return the figures of one Hub. Never by room or user: those are without number."""
    hands = opened.hands
    listening = [follower.kind for follower in hands.streams]
    rows = [
        ("connections", "gauge", "WebSockets that are open", {"": len(hands.connections)}),
        ("listeners", "gauge", "Event streams and polls that are open",
         {'{road="sse"}': listening.count("sse"), '{road="poll"}': listening.count("poll")}),
        ("rooms", "gauge", "Rooms that somebody is in or follows", {"": len(tuple(hands.mind.rooms()))}),
        ("publications_total", "counter", "Publications committed, here or elsewhere, that were heard of here",
         {"": hands.publications}),
        ("deaths_total", "counter", "Connections that fell silent and were dropped", {"": hands.deaths}),
        ("turned_away_total", "counter", "Newcomers told to come back because too many came at once",
         {"": opened.gate.door.turned_away}),
        ("draining", "gauge", "Whether nobody is taken in any more", {"": int(hands.departure.is_final)}),
    ]  # fmt: skip
    lines: list[str] = []
    for name, kind, meaning, values in rows:
        lines += [f"# HELP holdfast_{name} {meaning}.", f"# TYPE holdfast_{name} {kind}"]
        lines += [f"holdfast_{name}{labels} {value}" for labels, value in values.items()]
    return "\n".join(lines) + "\n"
