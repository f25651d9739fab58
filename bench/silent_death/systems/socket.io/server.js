// Express and Socket.IO as in its tutorial, with connection state recovery as its page on that has it.
const { createServer } = require("node:http");
const express = require("express");
const { Server } = require("socket.io");

const app = express();
const server = createServer(app);
const io = new Server(server, {
  connectionStateRecovery: {
    // the backup duration of the sessions and the packets
    maxDisconnectionDuration: 2 * 60 * 1000,
    // whether to skip middlewares upon successful recovery
    skipMiddlewares: false,
  },
});

io.on("connection", (socket) => {
  if (!socket.recovered) socket.join("room");
});

app.post("/publish", express.json(), (request, response) => {
  io.to("room").emit("message", request.body);
  response.json(null);
});

app.get("/members", async (request, response) => {
  response.json((await io.in("room").fetchSockets()).length);
});

server.listen(Number(process.argv[2]), "127.0.0.1");
