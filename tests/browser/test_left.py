"""Who leaves a room and joins it again at once, in JavaScript: what is said of the first time is not of the second."""

from __future__ import annotations

import pytest

from browser.node import needs_node, printed

#: A server to which it is 50 ms, and 50 ms back. What happens is told of the last time in the room.
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
    setTimeout(() => this.hear(JSON.parse(text)), 50);
  }
  hear({ type, room }) {
    if (room) this.isIn = type === "join" || (type !== "leave" && this.isIn);
    if (type === "auth") this.say({ type: "connected", session: "s", roomKey: "room", user: { userId: "u", name: "U" },
      heartbeat: { interval: 30, timeout: 10 }, limits: { messagesPerSecond: 50 } });
    if (type === "leave") this.say({ type: "left", room });
    if (type === "join") this.say({ type: "joined", room, cursor: "e:0", recovered: false, users: [], roomSize: 0 });
    if (type === "sync") this.say(this.isIn ? { type: "synced", room, cursor: "e:2", count: 0 } : { type: "error",
      error: "you are not in lobby; join it first", code: "conflict", room });
  }
  putOut() {
    this.isIn = false;
    this.say({ type: "left", room: "lobby", reason: "removed" });
  }
  close() {
    this.readyState = 3;
  }
}
const client = connect("ws://localhost/ws", { WebSocket: Socket, token: "t", jitter: false });
const again = (first) => {
  first.leave();
  const second = client.join("lobby");
  told.length = 0;
  for (const type of ["resync", "left", "error"]) second.on(type, () => told.push(type));
  return second;
};
const end = () => process.stdout.write(JSON.stringify(told) + "\\n", () => process.exit());
setTimeout(() => process.exit(1), 9000);
"""

STORIES = {
    "put out": """
const first = client.join("lobby");
first.on("resync", () => {
  sockets[0].putOut();
  const second = again(first);
  setTimeout(() => (again(second), setTimeout(end, 800)), 60); // it has come that the first was put out
});
""",
    "put out while it asked for something": """
const first = client.join("lobby");
first.on("resync", () => {
  sockets[0].putOut();
  setTimeout(() => sockets[0].onmessage({ data: '{"type":"said","room":"lobby","id":"e:2"}' })); // one is missing
  first.on("left", () => (again(first), setTimeout(end, 800)));
});
""",
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
