// What a client in JavaScript makes of a server: its URL, and '["frame", …]' for each dial, are the arguments.
// With frames they are what each WebSocket says; without, no WebSocket gets through. Prints what happens, one JSON a line.
import { connect } from "./holdfast.js"; // it runs in that folder

const [, url, ...dials] = process.argv;

const print = (...what) => console.log(JSON.stringify(what));
let dialed = 0;

class WebSocket {
  readyState = 0;
  constructor() {
    if (dials.length > 0) print("dial", performance.now() / 1000);
    const said = JSON.parse(dials[Math.min(dialed++, dials.length - 1)] ?? "null");
    setTimeout(() => {
      if (said === null) return this.onclose?.({ code: 1006, reason: "" });
      this.readyState = 1;
      this.onopen?.();
      for (const data of said) this.onmessage?.({ data });
    });
  }
  send(text) {
    print("said", JSON.parse(text));
  }
  close() {
    this.readyState = 3;
  }
}

const client = connect(url, { WebSocket, jitter: false });
client.on("status", ({ detail, reason, delay, road }) => print(detail, reason, delay, road));
const room = client.join("lobby");
room.on("resync", ({ cursor }) => print("resync", cursor));
room.on("event", ({ id }) => print("event", id));
room.on("broadcast", ({ type }) => print("broadcast", type));
globalThis.reportError = (error) => print("reported", String(error));
process.stdin.on("data", (line) => String(line).includes("now") ? client.retryNow() : process.exit(0));
