// What a client in JavaScript makes of a server: node bad_answers.mjs …/browser http://… ['["frame", …]' for each dial]
// With frames they are what each WebSocket says; without, no WebSocket gets through. Prints what happens, one JSON a line.
const [folder, url, ...dials] = process.argv.slice(2);
const { connect } = await import(`${folder}/holdfast.js`);

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
globalThis.reportError = (error) => print("reported", String(error));
process.stdin.on("data", (line) => String(line).includes("now") ? client.retryNow() : process.exit(0));
