// Runs the scenarios of one machine in JavaScript: node scenarios.mjs link …/browser
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const [machine, folder] = process.argv.slice(2);
const { Link, Outbox, Replica } = await import(`${folder}/holdfast.js`);
const { Reader } = await import(`${folder}/holdfast-http.js`);
const { scenarios } = JSON.parse(readFileSync(new URL(`../../spec/scenarios/${machine}.json`, import.meta.url), "utf8"));

const isNothing = (value) => value === 0 || value === null || value === "" || value === undefined;
const withoutNothing = (fields) => Object.fromEntries(Object.entries(fields).filter(([, value]) => !isNothing(value)));

const run = {
  link({ options, steps }) {
    const link = new Link(options);
    for (const step of steps) {
      const dice = step.dice ?? 0.5;
      const effects = step.tick ? link.tick(step.at, dice) : link.receive(step.input, step.at, dice);
      assert.deepEqual(effects, step.effects ?? [], JSON.stringify(step));
      assert.deepEqual(withoutNothing(link.status), step.status, JSON.stringify(step));
      assert.equal(link.deadline(), step.deadline ?? null, JSON.stringify(step));
    }
  },
  outbox({ steps }) {
    const outbox = new Outbox();
    for (const step of steps) {
      const puts = Array.from({ length: step.puts ?? 0 }, (_, number) => ({ type: "put", key: String(number), command: null }));
      const inputs = step.input ? [step.input] : puts;
      const effects = step.tick ? outbox.tick(step.at) : inputs.flatMap((input) => outbox.receive(input, step.at));
      assert.deepEqual(effects, step.effects ?? [], JSON.stringify(step));
      assert.equal(outbox.size, step.size, JSON.stringify(step));
      assert.equal(outbox.deadline(), step.deadline ?? null, JSON.stringify(step));
    }
  },
  reader({ steps }) {
    const reader = new Reader();
    for (const step of steps) {
      if (step.fails) {
        assert.throws(() => reader.receive(step.input, step.at), JSON.stringify(step));
        continue;
      }
      const effects = step.tick ? reader.tick(step.at) : reader.receive(step.input, step.at);
      assert.deepEqual(effects, step.effects ?? [], JSON.stringify(step));
      assert.equal(reader.how, step.how, JSON.stringify(step));
      assert.equal(reader.deadline(), step.deadline ?? null, JSON.stringify(step));
    }
  },
  replica({ options, steps }) {
    const replica = new Replica("lobby", options.resume);
    for (const step of steps) {
      if (step.do === "join") assert.deepEqual(replica.join(), step.says);
      if (step.do === "hold") replica.hold();
      if (step.do === "restart") assert.deepEqual(replica.restart(step.cursor), step.says);
      if (step.fails) {
        assert.throws(() => replica.receive({ ...step.message, room: "lobby" }), JSON.stringify(step));
        continue;
      }
      if (step.do === "receive") {
        const { items, ask } = replica.receive({ ...step.message, room: "lobby" });
        const flat = items.map(({ room, ...fields }) => fields);
        assert.deepEqual(flat, step.items ?? [], JSON.stringify(step));
        assert.deepEqual(ask, step.asks, JSON.stringify(step));
      }
      const { cursor, users, typing, size } = replica;
      const then = { cursor, users: [...users.keys()].sort(), typing: [...typing.keys()].sort(), size };
      assert.deepEqual(then, step.then, JSON.stringify(step));
    }
  },
};

for (const scenario of scenarios) {
  try {
    run[machine](scenario);
  } catch (error) {
    console.error(`“${scenario.name}” in JavaScript:\n${error.message}`);
    process.exitCode = 1;
  }
}
if (!process.exitCode) console.log("passed", scenarios.length);
