// Socket.IO, and ws, as their documentation has it: everybody is in a room, or is iterated over.
const { createServer } = require("node:http");

const [kind, port] = process.argv.slice(2);
const server = createServer(async (request, response) => {
  const asked = new URL(request.url, "http://bench").searchParams;
  const [rounds, burst, gap, size] = ["rounds", "burst", "gap", "size"].map((name) => Number(asked.get(name)));
  const began = performance.now();
  for (let round = 1; round <= rounds; round++) {
    // A number of nanoseconds is more than a double holds: it goes as text, and the crowd reads its digits.
    const at = process.hrtime.bigint();
    for (let i = 0; i < burst; i++) tell(at + BigInt(i), "x".repeat(size));
    await new Promise((go) => setTimeout(go, Math.max(0, began + 1000 * gap * round - performance.now())));
  }
  response.end();
});
let tell;

if (kind === "socket.io") {
  const { Server } = require("socket.io");
  const io = new Server(server);
  io.on("connection", (socket) => {
    socket.join("room");
    socket.on("echo", (data) => socket.emit("echo", data));
  });
  tell = (at, p) => io.to("room").emit("m", { "at=": `${at}`, p });
} else {
  const { WebSocketServer, WebSocket } = require("ws");
  const wss = new WebSocketServer({ server });
  wss.on("connection", (ws) => ws.on("message", (data) => ws.send(data.toString())));
  tell = (at, p) => {
    const data = JSON.stringify({ "at=": `${at}`, p });
    wss.clients.forEach((client) => {
      if (client.readyState === WebSocket.OPEN) client.send(data);
    });
  };
}
server.listen(Number(port), "127.0.0.1", 4096);
