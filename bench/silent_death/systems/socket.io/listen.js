// Those who listen to Socket.IO, with its own client. Says what they hear, in lines, as listen.py does.
const { io } = require("socket.io-client");

const say = (who, what, value = null) =>
  process.stdout.write(JSON.stringify([Number(process.hrtime.bigint()) / 1e9, who, what, value]) + "\n");

JSON.parse(process.argv[2]).forEach((url, who) => {
  const socket = io(url);
  let before = false;
  socket.on("connect", () => {
    if (before && !socket.recovered) say(who, "told", "recovered: false");
    before = true;
    say(who, "up");
  });
  socket.on("disconnect", (reason) => say(who, "down", reason));
  socket.on("message", (message) => say(who, "heard", message.n));
});

process.stdin.on("end", () => process.exit()).resume();
