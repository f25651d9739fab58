"""Who leaves a room and joins it again at once, in JavaScript: what is said of the first time is not of the second."""

from __future__ import annotations

import pytest

from browser.node import needs_node, printed

#: A server that answers each word 50 ms later, in their order. What happens is told of the second time in the room.
BEGIN = """
const { connect } = await import("./holdfast.js");
const told = [], sockets = [];

class Socket {
  readyState = 0;
  constructor() {
    sockets.push(this);
    setTimeout(() => this.onopen({}, (this.readyState = 1)));
  }
  say(message) {
    setTimeout(() => this.readyState === 1 && this.onmessage({ data: JSON.stringify(message) }), 50);
  }
  send(text) {
    const { type, room } = JSON.parse(text);
    if (type === "auth") this.say({ type: "connected", session: "s", roomKey: "room", user: { userId: "u", name: "U" },
      heartbeat: { interval: 30, timeout: 10 }, limits: { messagesPerSecond: 50 } });
    if (type === "leave") this.say({ type: "left", room });
    if (type === "join") this.say({ type: "joined", room, cursor: "e:0", recovered: false, users: [], roomSize: 0 });
  }
  close() {
    this.readyState = 3;
  }
}
const client = connect("ws://localhost/ws", { WebSocket: Socket, token: "t", jitter: false });
const again = (first) => {
  first.leave();
  const second = client.join("lobby");
  for (const type of ["resync", "left", "error"]) second.on(type, () => told.push(type));
  return second;
};
const end = () => process.stdout.write(JSON.stringify(told) + "\\n", () => process.exit());
setTimeout(() => process.exit(1), 9000);
"""

STORIES = {
    "before it is answered": """
const first = client.join("lobby");
client.on("connected", () => setTimeout(() => (again(first), setTimeout(end, 500)), 10));
""",
    "while it was in": """
const first = client.join("lobby");
first.on("resync", () => (again(first), setTimeout(end, 500)));
""",
    "while the page moves": """
const goodbye = { type: "goodbye", reason: "restart", after_ms: 0, spread_ms: 0 };
client.on("connected", () => sockets.length === 1 && sockets[0].say(goodbye));
client.on("status", ({ detail }) => {
  if (detail !== "moving") return;
  const first = client.join("lobby");
  setTimeout(() => (again(first), setTimeout(end, 500)), 10);
});
""",
    "and the link breaks": """
const first = client.join("lobby");
first.on("resync", () => {
  again(first).on("resync", () => setTimeout(end, 200));
  sockets[0].onclose({ code: 1006, reason: "" });
});
""",
}


@needs_node
@pytest.mark.parametrize("story", STORIES)
async def test_what_is_said_of_the_first_time_is_not_of_the_second(story: str) -> None:
    assert await printed(BEGIN + STORIES[story]) == [["resync"]]
