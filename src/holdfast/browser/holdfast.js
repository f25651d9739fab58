// @ts-check
/**
 * holdfast for browsers and Node: a client that stays in its rooms, whatever happens to the network.
 *
 *     const client = connect("/ws");
 *     const room = client.join("board-1");
 *     room.on("event", (event) => …);      // goes on across every disconnect
 *
 * The upper half decides: no clock, no dice, no socket; the same words as `core/` in Python. The lower
 * half carries it out. All times are seconds.
 */

/** @typedef {{type: string, code?: number, reason?: string, interval?: number, timeout?: number, after?: number,
 *   spread?: number}} Input  What has happened to the link. */
/** @typedef {{type: "authorize" | "dial" | "try" | "introduce" | "rejoin" | "probe" | "abandon" | "move", fresh?: boolean,
 *   road?: string, code?: number}} Effect  What is to be done about it. */
/** @typedef {{state: string, attempt: number, ceiling: number, delay: number, retryAt: number | null,
 *   code: number | null, reason: string, road: string}} Status  While it waits: try number `attempt` comes at
 *   `retryAt`. `road` is what carries, or is dialed: "websocket" or "http". */
/** @typedef {{userId: string, name: string}} User */
/** @typedef {{type: string, id?: string, [field: string]: any}} Message */

const CEILINGS = [1, 2, 4, 8, 16, 30];
const FLOOR = 0.25;
const STABLE_AFTER = 10;
const TOKEN_SECONDS = 60;
const GREETING_SECONDS = 10;
const MOVE_AGAIN_SECONDS = 2;
const PROBE_SECONDS = 3;
const LATE_SECONDS = 1;
const LONGEST_SECONDS = 3600; // what a server says of times, rates and secrets has bounds (PROTOCOL.md)
const SHORTEST_SECONDS = 0.01;
const SLOWEST_RATE = 0.01;
const USERS_SHOWN = 100;
const AWAY = 4900; // we go on with another connection, or will be back: we are shown meanwhile
const PASSING = ["internal", "unavailable"]; // errors: what was asked for is asked for again
const UNDECIDED = [...PASSING, "too_many", "too_slow"]; // … of which none says that a command will not be carried out

/** One rule: 40xx is about you, stay away; everything else, come back. @param {number} code */
export const mayReturn = (code) => !(code >= 4000 && code < 4100);

/** How long to wait before dialing again: ceilings that double, a delay drawn below them. */
export class Backoff {
  #failures = 0;
  #shortLived = 0;
  /** @type {number | null} */ #welcomedAt = null;

  /** @param {boolean} jitter */
  constructor(jitter) {
    this.jitter = jitter;
  }

  /** @param {number} now */
  welcomed(now) {
    this.#welcomedAt = now;
  }

  /** A link that died young twice in a row is still failing. @param {number} now */
  lost(now) {
    if (this.#welcomedAt === null) return;
    this.#shortLived = now - this.#welcomedAt >= STABLE_AFTER ? 0 : this.#shortLived + 1;
    this.#welcomedAt = null;
    if (this.#shortLived < 2) this.#failures = 0;
  }

  /** The next wait, as `peek` says; the attempt that comes after it is counted.
   * @param {number} dice  @param {[number, number] | null} [advice] */
  next(dice, advice) {
    const delay = this.peek(dice, advice);
    this.tried();
    return delay;
  }

  /** The next wait; nothing is counted: what is planned may not come to be tried.
   * @param {number} dice  @param {[number, number] | null} [advice]  the server's word: after, spread; whoever welcomes
   * and sends away, again and again, makes nobody dial more often than by our own rule */
  peek(dice, advice) {
    const attempt = this.#failures + 1;
    const ceiling = CEILINGS[Math.min(attempt, CEILINGS.length) - 1];
    const own = { attempt, ceiling, delay: this.jitter ? Math.max(FLOOR, ceiling * dice) : ceiling };
    if (!advice) return own;
    const [after, spread] = advice;
    const advised = { attempt, ceiling: after + spread, delay: Math.max(FLOOR, after + spread * dice) };
    return this.#shortLived >= 2 && own.delay > advised.delay ? own : advised;
  }

  /** Count an attempt. */
  tried() {
    this.#failures += 1;
  }
}

const PATIENCE = 3;
const TRIAL_SECONDS = 5;
const LONGEST_TRIAL_SECONDS = 300;

/** Which road is dialed? A WebSocket; plain HTTP where there seems to be no way for one. */
class Roads {
  road = "websocket";
  /** @type {number | null} */ trialAt = null;
  #proven = false; // a WebSocket has been live
  #failures = 0; // of WebSockets since then
  #trials = 0;

  /** @param {boolean} fallback */
  constructor(fallback) {
    this.fallback = fallback;
  }

  /** The road led nowhere; whether there is another one for the same attempt. */
  barred() {
    const was = this.road;
    this.road = "websocket";
    if (was === "http" || ++this.#failures < (this.#proven ? PATIENCE : 1) || !this.fallback) return false;
    this.road = "http";
    return true;
  }

  /** The road carries. @param {number} now */
  welcomed(now) {
    if (this.road === "http") return this.tried(now);
    this.#proven = true;
    this.#failures = this.#trials = 0;
  }

  /** A WebSocket is being tried, or need not be yet; the next one is later. @param {number} now */
  tried(now) {
    this.trialAt = now + Math.min(TRIAL_SECONDS * 2 ** this.#trials++, LONGEST_TRIAL_SECONDS);
  }
}

const ARRIVING = ["dialing", "greeting"];
const OPEN = [...ARRIVING, "live", "probing", "moving"];

/** The life of a link: [state, input] → state. What is not in it changes nothing. @type {Record<string, string>} */
export const LIFE = {
  "idle start": "authorizing",
  "closed start": "authorizing",
  "authorizing authorized": "dialing",
  "authorizing lost": "waiting",
  "authorizing turned_away": "closed",
  "dialing opened": "greeting",
  "greeting welcomed": "live",
  "live nudged": "probing",
  "live silent": "probing",
  "probing heard": "live",
  "waiting rung": "authorizing",
  "waiting nudged": "authorizing",
  "paused unpaused": "authorizing",
  "dialing silent": "waiting",
  "greeting silent": "waiting",
  "probing silent": "waiting",
  "live free": "authorizing",
  "probing free": "authorizing",
  "live moved": "moving",
  "probing moved": "moving",
  "moving welcomed": "live",
  "moving silent": "waiting",
  "dialing barred": "dialing",
  "greeting barred": "dialing",
};
for (const state of OPEN) {
  LIFE[`${state} lost`] = "waiting";
  LIFE[`${state} turned_away`] = "closed";
}
for (const state of ["authorizing", "waiting", ...OPEN]) LIFE[`${state} paused`] = "paused";
for (const state of ["idle", "authorizing", "waiting", "paused", ...OPEN]) LIFE[`${state} stop`] = "closed";

/** The client's mind: is there a link, and if not, what is to be done about it? */
export class Link {
  /** @type {number | null} */ #alarm = null;
  /** @type {[number, number] | null} */ #advice = null;
  /** @type {number | null} */ #moveAt = null; // to another server, while this one still carries
  #again = MOVE_AGAIN_SECONDS; // then twice as long each time
  #backoff;
  #refused = false; // the last token was; the next is asked for afresh
  #silence = 0;
  #heardAt = 0;
  #dialedAt = -Infinity;
  #roads;

  /** @param {{jitter?: boolean, renewable?: boolean, fallback?: boolean}} [options]  renewable: there is a way to a
   * fresh token; fallback: where there is no way for a WebSocket, plain HTTP is tried */
  constructor({ jitter = true, renewable = false, fallback = false } = {}) {
    this.#backoff = new Backoff(jitter);
    this.#roads = new Roads(fallback);
    this.renewable = renewable;
    /** @type {Status} */
    this.status = { state: "idle", attempt: 0, ceiling: 0, delay: 0, retryAt: null, code: null, reason: "", road: "websocket" };
  }

  get state() {
    return this.status.state;
  }

  /** Take in what happened; `dice` is uniform in [0, 1). @param {Input} input @returns {Effect[]}
   * @param {number} now  @param {number} dice */
  receive(input, now, dice) {
    switch (input.type) {
      case "heard":
        this.#heardAt = now;
        if (this.state === "live") return []; // the alarm finds out by itself
        break;
      case "advised":
        this.#advice = [input.after ?? 0, input.spread ?? 0];
        this.#planMove(now, dice);
        return [];
      case "welcomed":
        this.#silence = (input.interval ?? 0) + (input.timeout ?? 0);
        this.#heardAt = now;
        break;
      case "lost":
        if (!mayReturn(input.code ?? 1006) && !this.#mayAskAgain(input.code)) {
          return this.#step({ ...input, type: "turned_away" }, now, dice);
        }
        if (ARRIVING.includes(this.state) && (input.code ?? 1006) === 1006 && this.#roads.barred()) {
          return this.#step({ type: "barred" }, now, dice, true);
        }
        break;
      case "free":
        // It has come to be known in the meantime; or another road is being dialed, and will be live as what it is.
        if (this.#roads.road === "websocket" || !["live", "probing"].includes(this.state)) return [];
        this.#roads.road = "websocket";
        break;
      case "authorized":
        if (this.state === "authorizing" && now < this.#dialedAt + FLOOR) {
          this.#alarm = this.#dialedAt + FLOOR; // whoever has hurried it, and how often
          return [];
        }
    }
    return this.#step(input, now, dice);
  }

  /** Take in that time has passed. @param {number} now  @param {number} dice  @returns {Effect[]} */
  tick(now, dice) {
    if (this.#roads.trialAt !== null && now >= this.#roads.trialAt) {
      this.#roads.tried(now);
      return [{ type: "try" }];
    }
    if (this.#moveAt !== null && now >= this.#moveAt) {
      this.#moveAt = now + this.#again;
      this.#again = Math.min(2 * this.#again, 30);
      this.#backoff.tried();
      return this.#dial({ type: "move" }, now);
    }
    if (this.#alarm === null || now < this.#alarm) return [];
    const late = now - this.#alarm > LATE_SECONDS; // the machine slept: that says nothing about the server
    if (this.state === "waiting") return this.#step({ type: "rung" }, now, dice);
    if (this.state === "authorizing") {
      const hurried = this.#alarm === this.#dialedAt + FLOOR;
      return this.#step(hurried ? { type: "authorized" } : { type: "lost", reason: "no token: it does not come" }, now, dice);
    }
    if (this.state === "live" && now < this.#heardAt + this.#silence) {
      this.#alarm = this.#heardAt + this.#silence;
      return [];
    }
    if (this.state === "probing" && late) {
      this.#alarm = now + PROBE_SECONDS;
      return [{ type: "probe" }];
    }
    const barred = ARRIVING.includes(this.state) && this.#roads.barred();
    return this.#step({ type: barred ? "barred" : "silent" }, now, dice);
  }

  /** When `tick` is due next. */
  deadline() {
    return earliest([this.#alarm, this.#roads.trialAt, this.#moveAt]);
  }

  /** @param {number | undefined} code */
  #mayAskAgain(code) {
    if (code !== 4001 || !this.renewable || this.#refused) return false;
    return (this.#refused = true);
  }

  /** @param {Input} input  @param {number} now  @param {number} dice  @param {boolean} [gone]  the socket is
   * @returns {Effect[]} */
  #step(input, now, dice, gone) {
    const before = this.state;
    const after = LIFE[`${before} ${input.type}`];
    if (after === undefined) return [];
    const lost = input.type === "lost" || input.type === "turned_away" ? input : null;
    /** @type {Effect[]} */
    const effects = [];
    const stays = ["greeting", "live", "probing", "moving"].includes(after);
    if (OPEN.includes(before) && !stays && !lost && !gone) {
      effects.push({ type: "abandon", code: after === "paused" ? 1001 : 1000 });
    }
    if (!["live", "probing"].includes(after)) this.#roads.trialAt = this.#moveAt = null;
    switch (after) {
      case "authorizing":
        this.#alarm = now + TOKEN_SECONDS;
        this.#set(after);
        effects.push({ type: "authorize", fresh: this.#refused });
        break;
      case "dialing":
        this.#alarm = now + GREETING_SECONDS;
        this.#set(after);
        effects.push(...this.#dial({ type: "dial", road: this.#roads.road }, now));
        break;
      case "moving":
        this.#backoff.lost(now); // the link that was; whoever is sent on from one to the next takes their time
        this.#advice = null; // and what it said of itself
        this.#alarm = now + GREETING_SECONDS;
      // as then
      case "greeting":
        this.#set(after);
        effects.push({ type: "introduce" });
        break;
      case "live":
        this.#alarm = now + this.#silence;
        this.#set(after);
        Object.assign(this.status, { attempt: 0, ceiling: 0, delay: 0, code: null, reason: "" });
        if (before === "probing") break;
        this.#backoff.welcomed(now);
        this.#roads.welcomed(now);
        this.#refused = false;
        this.#again = MOVE_AGAIN_SECONDS;
        this.#planMove(now, dice); // it may have been told to before it was welcomed
        effects.push({ type: "rejoin" });
        break;
      case "probing":
        this.#alarm = now + PROBE_SECONDS;
        this.#set(after);
        effects.push({ type: "probe" });
        break;
      case "waiting": {
        this.#backoff.lost(now);
        const wait = this.#backoff.next(dice, this.#advice);
        this.#advice = null;
        this.#alarm = now + wait.delay;
        const { code = 1006, reason = "" } = lost ?? { reason: "the server fell silent" };
        this.status = { state: after, ...wait, retryAt: this.#alarm, code, reason, road: this.#roads.road };
        break;
      }
      case "paused":
        this.#alarm = null;
        this.#set(after);
        break;
      case "closed":
        this.#alarm = null;
        this.#set(after);
        Object.assign(this.status, { attempt: 0, ceiling: 0, delay: 0, code: lost?.code ?? null, reason: lost?.reason ?? "" });
    }
    return effects;
  }

  /** Plan to move if that is advised: once, however often it is told to. @param {number} now  @param {number} dice */
  #planMove(now, dice) {
    if (this.#advice && ["live", "probing"].includes(this.state) && this.#roads.road === "websocket") {
      this.#moveAt ??= now + this.#backoff.peek(dice, this.#advice).delay;
    }
  }

  /** Dial, by either: nobody does it twice within `FLOOR`. What was advised is heeded with it.
   * @param {Effect} effect  @param {number} now */
  #dial(effect, now) {
    this.#dialedAt = now;
    this.#advice = null;
    return [effect];
  }

  /** Be in another state, but keep what is known of the attempts. @param {string} state */
  #set(state) {
    this.status = { ...this.status, state, retryAt: null, road: this.#roads.road };
  }
}

/** @param {(number | null)[]} times */
function earliest(times) {
  const earliest = Math.min(...times.map((time) => time ?? Infinity));
  return earliest === Infinity ? null : earliest;
}

/** Where a cursor stands in a room; throws if it does not say so.
 * @param {string} cursor  @param {string} room  @returns {{epoch: string, offset: number}} */
export function position(cursor, room) {
  const [epoch, rest = ""] = cursor.split(":", 2);
  const mine = rest.split(";").map((part) => part.split("=")).find(([name, at]) => !at || decodeURIComponent(name) === room);
  const digits = mine?.at(-1) ?? "";
  if (!epoch || !/^\d{1,19}$/.test(digits)) throw new Error(`${cursor} is no place in ${room}`);
  return { epoch, offset: Number(digits) };
}

/**
 * A client's copy of one room: where does it stand, who is there, and what may the application be told?
 *
 * `receive` returns what the application is told (`items`) and what the server is asked (`ask`).
 */
export class Replica {
  /** @type {{epoch: string, offset: number} | null} */ #position = null;
  #joined = false;
  #syncing = false;
  /** @type {string | null} */ #behindAt = null; // where it was asked for what follows, and must have it by the answer
  stuck = false; // nothing has followed the last snapshot: another one may come to nothing as well
  /** @type {Map<string, User>} */ users = new Map();
  /** @type {Map<string, User>} */ typing = new Map();
  size = 0;

  /** @param {string} room  @param {boolean} resume  join from the position that it has */
  constructor(room, resume) {
    this.room = room;
    this.resume = resume;
  }

  get cursor() {
    return this.#position && `${this.#position.epoch}:${this.#position.offset}`;
  }

  /** How to (re)join. @returns {Message} */
  join() {
    this.#joined = this.#syncing = this.stuck = false;
    this.#behindAt = null;
    return this.resume && this.cursor ? { type: "join", since: this.cursor } : { type: "join" };
  }

  /** Tell no event until `restart`: a snapshot is being taken. Until then it stands nowhere. */
  hold() {
    this.#position = this.#behindAt = null;
  }

  /** Go on from a snapshot. @param {string} cursor  @returns {Message} */
  restart(cursor) {
    this.#position = position(cursor, this.room);
    this.#syncing = this.stuck = true;
    return { type: "sync", since: cursor };
  }

  /** Take in a message of this room. @param {Message} message  @returns {{items: Message[], ask?: Message}} */
  receive(message) {
    switch (message.type) {
      case "joined":
        return { items: [this.#enter(message)] };
      case "resync":
        this.#syncing = false;
        if (!this.#position) return { items: [] }; // it is about to start afresh
        this.#position = position(message.cursor, this.room);
        return { items: [message] };
      case "synced":
        this.#syncing = false;
        return this.#joined && this.#beyond(message.cursor) > 0 ? this.#askOn() : { items: [] };
      case "left": // not the answer to our own: who leaves has no copy any more
        break;
      case "presence":
      case "user_joined":
      case "user_left":
        this.#people(message);
        break;
      case "user_typing":
        meet(this.typing, [message]);
        break;
      case "user_stopped_typing":
        this.typing.delete(message.userId);
        break;
      default:
        return this.#follow(message);
    }
    return { items: this.#joined ? [message] : [] };
  }

  /** Take in the answer to a join. @param {Message} message  @returns {Message} */
  #enter(message) {
    if (this.#joined || (message.recovered && message.cursor !== this.cursor)) throw new Error("not asked");
    const known = this.#position !== null;
    this.#joined = true;
    this.#position = position(message.cursor, this.room);
    this.typing.clear();
    this.#people(message);
    const { cursor, reason = known ? "chosen" : "new" } = message;
    return message.recovered ? { type: "resumed", cursor } : { type: "resync", reason, cursor };
  }

  /** Tell what follows the position, drop what it has, ask for what is missing.
   * @param {Message} event  @returns {{items: Message[], ask?: Message}} */
  #follow(event) {
    if (!this.#joined || !this.#position) return { items: [] };
    if (event.id === undefined) return { items: [event] };
    const beyond = this.#beyond(event.id);
    if (beyond !== 1) return beyond > 0 && !this.#syncing ? this.#askOn() : { items: [] };
    this.#position.offset++; // before the application is told
    this.stuck = false;
    return { items: [event] };
  }

  /** How far that is beyond where it stands. @param {string} cursor */
  #beyond(cursor) {
    const { epoch, offset } = position(cursor, this.room);
    return epoch === this.#position?.epoch ? offset - this.#position.offset : 0;
  }

  /** Ask for the rest; who was asked for it from here on, and has answered, has sent it. */
  #askOn() {
    if (this.#behindAt === this.cursor) throw new Error("asked twice");
    this.#behindAt = this.cursor;
    this.#syncing = true;
    return { items: [], ask: { type: "sync", since: /** @type {string} */ (this.cursor) } };
  }

  /** @param {Message} message */
  #people(message) {
    const { type, users, joined = [], left = [] } = message;
    this.size = message.roomSize;
    if (users) this.users.clear();
    for (const user of type === "user_left" ? [message] : left) {
      this.users.delete(user.userId);
      this.typing.delete(user.userId);
    }
    meet(this.users, users ?? (type === "user_joined" ? [message] : joined));
  }
}

/** Note who has come: as many as are ever named at once. @param {Map<string, User>} known  @param {any[]} came */
function meet(known, came) {
  for (const { userId, name } of came) if (known.has(userId) || known.size < USERS_SHOWN) known.set(userId, { userId, name });
}

/** @typedef {{type: string, key?: string, [field: string]: any}} OutboxEffect  `send` or `settle`. */

const COMMANDS = 1000;
const UNDER_WAY = 16;
const BURST = 20;
const MEMORY_SECONDS = 23 * 3600; // after which the server may have forgotten a key

/**
 * What was commanded, and not been answered yet? Kept in order, sent again under its key after a link that broke,
 * and settled once, honestly: done, rejected, not sent, or unknown.
 */
export class Outbox {
  /** @type {Map<string, {command: any, firstSent: number | null, times: number, underWay: boolean}>} */ #entries = new Map();
  /** @type {number | null} */ #rate = null; // null: there is no way
  #underWay = 0;
  #busyUntil = 0;

  get size() {
    return this.#entries.size;
  }

  /** Take in what happened: `put`, `ready` (at a `rate`), `broken`, `answered`, `withdrawn` or `stop`.
   * `passing`: what was answered is not what a command came to, but why it did not come to anything just now.
   * @param {{type: string, key?: any, command?: any, rate?: any, ok?: boolean, value?: any, passing?: boolean}} input
   * @param {number} now  @returns {OutboxEffect[]} */
  receive({ type, key, command, rate, ok, value, passing }, now) {
    /** @type {OutboxEffect[]} */
    let settled = [];
    switch (type) {
      case "put":
        if (this.size >= COMMANDS) return [{ type: "settle", key, result: "not sent" }];
        this.#entries.set(key, { command, firstSent: null, times: 0, underWay: false });
        break;
      case "ready":
        this.#rate = rate;
        break;
      case "broken":
        this.#rate = null;
        this.#underWay = 0;
        for (const entry of this.#entries.values()) entry.underWay = false;
        break;
      case "answered":
        // Of one that was sent twice, the other copy may still be on its way, and fare better.
        if (!ok && passing && (this.#entries.get(key)?.times ?? 0) > 1) settled = this.#settle(key, "unknown");
        else settled = this.#settle(key, ok ? "done" : "rejected", value);
        break;
      case "withdrawn":
        settled = this.#giveUp(key);
        break;
      case "stop":
        this.#rate = null;
        settled = [...this.#entries.keys()].flatMap((each) => this.#giveUp(each));
    }
    return [...settled, ...this.#send(now)];
  }

  /** @param {number} now  @returns {OutboxEffect[]} */
  tick(now) {
    const settled = [];
    for (const [key, { firstSent }] of this.#entries) {
      if (firstSent !== null && now >= firstSent + MEMORY_SECONDS) settled.push(...this.#settle(key, "unknown"));
    }
    return [...settled, ...this.#send(now)];
  }

  /** When `tick` is due next. */
  deadline() {
    const times = [...this.#entries.values()].map(({ firstSent }) => firstSent === null ? null : firstSent + MEMORY_SECONDS);
    if (this.#rate && this.#underWay < Math.min(UNDER_WAY, this.size)) times.push(this.#busyUntil - BURST / this.#rate);
    return earliest(times);
  }

  /** @param {string} key  @param {string} result  @param {any} [value]  @returns {OutboxEffect[]} */
  #settle(key, result, value) {
    const entry = this.#entries.get(key);
    if (!entry) return [];
    this.#entries.delete(key);
    if (entry.underWay) this.#underWay--;
    return [{ type: "settle", key, result, ...(value !== undefined && { value }) }];
  }

  /** @param {string} key */
  #giveUp(key) {
    return this.#settle(key, (this.#entries.get(key)?.firstSent ?? null) === null ? "not sent" : "unknown");
  }

  /** @param {number} now */
  #send(now) {
    const sent = [];
    for (const [key, entry] of this.#entries) {
      if (!this.#rate || this.#underWay >= UNDER_WAY || this.#busyUntil - BURST / this.#rate > now) break;
      if (entry.underWay) continue;
      entry.underWay = true;
      entry.firstSent ??= now;
      entry.times++;
      this.#underWay++;
      this.#busyUntil = Math.max(this.#busyUntil, now) + 1 / this.#rate;
      sent.push({ type: "send", key, command: entry.command });
    }
    return sent;
  }
}

// ── the hands ────────────────────────────────────────────────────────────────────────────────────

/** Return a clock of seconds that counts sleep, and never goes back when somebody sets the wall's. */
function forwardClock() {
  let wall = Date.now();
  let now = 0;
  return () => {
    const then = wall;
    wall = Date.now();
    return (now += Math.max(0, wall - then) / 1000);
  };
}

/** Return a name that nobody else gives. */
function newKey() {
  return globalThis.crypto?.randomUUID?.() ?? `${Date.now()}-${Math.random()}-${Math.random()}`; // not on plain http
}

/** @param {any} error */
const report = (error) => (globalThis.reportError ?? console.error)(error);

/** Tells listeners. One that throws is reported, and harms nobody else. @template Events */
class Emitter {
  /** @type {Map<keyof Events, Set<(what: any) => void>>} */ #listeners = new Map();

  /** Listen; returns what ends it.
   * @template {keyof Events} Type @param {Type} type  @param {(what: Events[Type]) => void} listener */
  on(type, listener) {
    const listeners = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, listeners.add(listener));
    return () => void listeners.delete(listener);
  }

  /** @template {keyof Events} Type @param {Type} type  @param {Events[Type]} what @returns {boolean} whether anybody listens */
  emit(type, what) {
    for (const listener of [...(this.#listeners.get(type) ?? [])]) {
      try {
        listener(what);
      } catch (error) {
        report(error);
      }
    }
    return Boolean(this.#listeners.get(type)?.size);
  }
}

/** @typedef {() => Promise<{data: any, cursor: string}>} Snapshot  A room's state, and the position it was taken at. */
/** @typedef {{type: "error", error: string, code: string}} Problem */
/** @typedef {{type: "resync", reason: string, cursor: string}} Resync  Why nothing can be continued (`new`, `chosen`,
 *   `trimmed`, `epoch`, `ahead`), and where it goes on. */
/**
 * What a room tells. After each (re)join, exactly one of `resumed` and `resync`, before anything else: whoever listens
 * for events and not for `resync`, and gave no function that takes a snapshot, is reported when it happens.
 *
 * @typedef {object} RoomEvents
 * @property {{type: "resumed", cursor: string}} resumed  you are back and nothing is missing: what you missed follows
 * @property {Resync} resync  what you have cannot be continued: start afresh
 * @property {{data: any, cursor: string, reason: string}} snapshot  what your function returned: replace what you have
 * @property {Message} event  a publication, with its `id`
 * @property {Message} broadcast  what is not recorded
 * @property {User[]} presence  who is here
 * @property {User[]} typing  who of them is typing
 * @property {Problem} error  the server lets us in no more, or not just now (`internal`, `unavailable`: it is asked again)
 * @property {Message} left  the server has put us out
 */

/** A room that was joined. @extends {Emitter<RoomEvents>} */
class Room extends Emitter {
  #client;
  joinedOn = 0;
  refusedOn = 0; // it is about to be joined again
  backoff = new Backoff(true); // of joins that failed for no fault of ours, and of snapshots that came to nothing
  outbox = new Outbox();
  snapshots = 0; // begun so far; only the newest one counts

  /** @param {Client} client  @param {Replica} replica  @param {Snapshot | undefined} snapshot */
  constructor(client, replica, snapshot) {
    super();
    this.#client = client;
    this.replica = replica;
    this.snapshot = snapshot;
  }

  get name() {
    return this.replica.room;
  }

  /** Let a while pass after a failure: longer each time. */
  wait() {
    return new Promise((resolve) => setTimeout(resolve, 1000 * this.backoff.next(Math.random()).delay));
  }

  /** Who is here; `size` is how many, for of a crowd not all are named. */
  get users() {
    return [...this.replica.users.values()];
  }

  get size() {
    return this.replica.size;
  }

  get typing() {
    return [...this.replica.typing.values()];
  }

  /** Send a message of the application; whether there was a link to send it on.
   * @param {string} type  @param {Record<string, any>} [data] */
  send(type, data = {}) {
    return this.#client.say({ ...data, type }, this.name);
  }

  /** Have the server handle a message, once, whatever becomes of the link; resolves to what its handler returned.
   * Rejects with an `Error` whose `result` is rejected (then `code` says why), not sent, or unknown.
   * @param {string} type  @param {Record<string, any>} [data]  @returns {Promise<any>} */
  command(type, data = {}) {
    return this.#client.command(this, { ...data, type });
  }

  leave() {
    this.#client.leave(this);
  }
}

/** @typedef {"connecting" | "live" | "waiting" | "closed"} State */
/** @typedef {Readonly<Omit<Status, "state"> & {state: State, detail: string, everLive: boolean}>} LinkStatus  `detail` is
 *   the machine's own word; `retryAt` is in seconds since 1970. */
/** @typedef {{status: LinkStatus, connected: User, error: Problem}} ClientEvents  What a client tells. */

/** @param {number} least  @param {number} most  @param {any[]} values */
const areWithin = (least, most, ...values) => values.every((value) => Number.isFinite(value) && value >= least && value <= most);

/** Whether one can keep to what a server says of times, rates, names and secrets; it may throw. @param {any} message */
function isBearable({ type, heartbeat, limits, roomKey = "", session = "-", token = "-", after_ms, spread_ms }) {
  if (type === "goodbye") return areWithin(0, 1000 * LONGEST_SECONDS, after_ms, spread_ms);
  if (type !== "connected") return true;
  return (
    areWithin(SHORTEST_SECONDS, LONGEST_SECONDS, heartbeat.interval, heartbeat.timeout) &&
    limits.messagesPerSecond >= SLOWEST_RATE &&
    /^(?!(type|id|ref|key|since)$)[\w-]{1,64}$/.test(roomKey) && // it stands beside those
    /^[!-~]{1,64}$/.test(session) &&
    /^[ -~]{1,4096}$/.test(token)
  );
}

/** What a frame says; throws if that is not in the protocol. @param {string} text  @returns {Message} */
function parsed(text) {
  const message = JSON.parse(text);
  if (typeof message.type !== "string" || !isBearable(message)) throw new Error(text.slice(0, 100));
  return message;
}

/** A client that stays connected, and in its rooms. See `connect`. @extends {Emitter<ClientEvents>} */
class Client extends Emitter {
  #link;
  #options;
  #now = forwardClock();
  /** @type {(Input | null)[]} */ #inbox = [];
  /** @type {Map<string, Room>} */ #rooms = new Map();
  /** @type {WebSocket | import("./holdfast-http.js").HttpSocket | null} */ #socket = null;
  /** @type {import("./holdfast-http.js").Reader | undefined} */ #reader;
  /** @type {any} */ #spare = null; // a socket to go over to
  #generation = 0; // of sockets: what comes from an earlier one is passed over
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  /** @type {string | null} */ #token = null;
  #asked = 0; // for it: of two calls, the failure of the later one counts
  /** @type {Set<string>} */ #over = new Set(); // rooms, on this link, and we have not said so: more may come of what was before
  /** @type {Map<string, number>} */ #lefts = new Map(); // that are to come, where we have: all up to the last is of before
  #links = 0; // of two that are open, the later one is the one to be heard
  /** @type {string | null} */ #session = null; // in memory only: two tabs must not fight over one
  #roomKey;
  #everLive = false;
  /** @type {(() => void)[]} */ #disposers = [];
  /** @type {Map<string, {room: Room, resolve: (value: any) => void, reject: (error: Error) => void}>} */ #answers = new Map();
  #rate = 1;
  /** @type {User | null} */ user = null;

  /** @param {string} url  @param {Options} options */
  constructor(url, options) {
    super();
    this.#options = options;
    this.#roomKey = options.roomKey ?? "room";
    if (typeof options.token === "string") this.#token = options.token;
    this.url = new URL(url, globalThis.location?.href);
    this.url.protocol = this.url.protocol.replace("http", "ws");
    this.#link = new Link({ jitter: options.jitter ?? true, renewable: typeof options.token === "function", fallback: true });
    this.open();
  }

  /** How the link is. @returns {LinkStatus} */
  get status() {
    const { state: detail, retryAt, ...rest } = this.#link.status;
    /** @type {Record<string, State>} */
    const plain = { live: "live", probing: "live", moving: "live", waiting: "waiting", closed: "closed" };
    const state = plain[detail] ?? "connecting";
    const wall = retryAt && retryAt - this.#now() + Date.now() / 1000;
    return Object.freeze({ state, detail, everLive: this.#everLive, ...rest, retryAt: wall });
  }

  /** Join a room, and stay in it. @param {string} name  @param {{snapshot?: Snapshot}} [options] */
  join(name, { snapshot } = {}) {
    const known = this.#rooms.get(name);
    if (known) return known;
    const room = new Room(this, new Replica(name, this.#options.recover !== "snapshot"), snapshot);
    this.#rooms.set(name, room);
    queueMicrotask(() => this.status.state === "live" && this.#join(room));
    return room;
  }

  /** @param {Room} room */
  leave(room) {
    if (this.#rooms.get(room.name) !== room) return;
    this.#end(room);
    this.#part(room.name);
  }

  /** Say that one is left, if it is over and that was not said. @param {string} name */
  #part(name) {
    if (!this.#over.delete(name)) return;
    this.#lefts.set(name, (this.#lefts.get(name) ?? 0) + 1);
    this.say({ type: "leave" }, name);
  }

  /** There is nothing more of it, and no way for its commands. @param {Room} room */
  #end(room) {
    this.#rooms.delete(room.name);
    if (room.joinedOn === this.#generation) this.#over.add(room.name);
    this.#tellOutbox(room, { type: "stop" });
  }

  /** @param {Room} room  @param {any} command  @returns {Promise<any>} */
  command(room, command) {
    const key = newKey();
    return new Promise((resolve, reject) => {
      JSON.stringify(command); // who gave what cannot be sent is told at once
      this.#answers.set(key, { room, resolve, reject });
      this.#tellOutbox(room, { type: "put", key, command });
      if (this.#rooms.get(room.name) !== room || this.#link.state === "closed") this.#tellOutbox(room, { type: "stop" });
    });
  }

  /** How many commands have not been answered yet. */
  get unanswered() {
    return this.#answers.size;
  }

  /** @param {Room} room  @param {any} input  what happened; null: time has passed */
  #tellOutbox(room, input) {
    const now = this.#now();
    for (const { type, key, command, result, value } of input ? room.outbox.receive(input, now) : room.outbox.tick(now)) {
      if (type === "send") {
        this.say({ ...command, ref: key, key }, room.name);
        continue;
      }
      const answer = this.#answers.get(/** @type {string} */ (key));
      this.#answers.delete(/** @type {string} */ (key));
      if (result === "done") answer?.resolve(value);
      else answer?.reject(Object.assign(new Error(value?.error ?? `the command's outcome: ${result}`), { result, code: value?.code }));
    }
    this.#arm(now);
  }

  /** Do not wait for the next attempt. */
  retryNow() {
    this.#tell({ type: "nudged" });
  }

  /** Say who you are on a live link: a token that was renewed. @param {string} token */
  authenticate(token) {
    this.#token = token;
    this.say({ type: "auth", token });
  }

  /** Dial again after `closed`, with whatever credentials there are now. */
  open() {
    if (this.#disposers.length === 0) this.#watch();
    this.#tell({ type: "start" });
  }

  /** End it. */
  close() {
    for (const dispose of this.#disposers.splice(0)) dispose();
    this.#tell({ type: "stop" });
  }

  /** Send a message; whether there was a socket to send it on. @param {Message} message  @param {string} [room] */
  say(message, room) {
    if (this.#socket?.readyState !== 1) return false;
    this.#socket.send(JSON.stringify(room === undefined ? message : { ...message, [this.#roomKey]: room }));
    return true;
  }

  /**
   * Tell the machine what happened (null: time has passed), and do what it says. What listeners and effects
   * cause meanwhile waits for its turn, so nothing ever runs inside the machine.
   *
   * @param {Input | null} input
   */
  #tell(input) {
    if (this.#inbox.push(input) > 1) return;
    for (; this.#inbox.length > 0; this.#inbox.shift()) {
      try {
        this.#happened(this.#inbox[0]);
      } catch (error) {
        report(error); // a mistake somewhere; the machine goes on
      }
      this.#arm(this.#now());
    }
  }

  /** @param {Input | null} input */
  #happened(input) {
    const before = this.#link.status;
    const now = this.#now();
    const dice = Math.random();
    for (const effect of input ? this.#link.receive(input, now, dice) : this.#link.tick(now, dice)) this.#carry(effect);
    if (!input) for (const room of this.#rooms.values()) this.#tellOutbox(room, null);
    const { state } = this.#link;
    if (this.#socket === null || state === "closed") {
      for (const room of this.#rooms.values()) this.#tellOutbox(room, { type: state === "closed" ? "stop" : "broken" });
    }
    if (this.#link.status !== before) this.emit("status", this.status);
  }

  /** @param {number} now */
  #arm(now) {
    const machines = [this.#link, ...[...this.#rooms.values()].map((room) => room.outbox)];
    const deadline = earliest(machines.map((machine) => machine.deadline()));
    clearTimeout(this.#timer);
    if (deadline === null) return;
    const wait = 1000 * (deadline - now) + 1; // of what is due already, less than nothing, which is no time
    this.#timer = setTimeout(() => this.#tell(null), Math.min(wait, 2 ** 31 - 1)); // browsers count in 32 bits
  }

  /** @param {Effect} effect */
  #carry(effect) {
    switch (effect.type) {
      case "authorize":
        this.#authorize(effect.fresh ?? false);
        break;
      case "dial":
        this.#dial(effect.road === "http");
        break;
      case "try":
        this.#try();
        break;
      case "move":
        this.#move();
        break;
      case "introduce":
        this.say(this.#auth());
        break;
      case "rejoin":
        this.#everLive = true;
        for (const room of this.#rooms.values()) this.#join(room);
        break;
      case "probe":
        this.say({ type: "ping" });
        break;
      case "abandon":
        this.#abandon(effect.code ?? 1000);
    }
  }

  /** @param {boolean} fresh  the token that there is was refused */
  async #authorize(fresh) {
    const { token } = this.#options;
    const asked = ++this.#asked;
    try {
      if (typeof token === "function" && (fresh || this.#token === null)) this.#token = await token();
      else if (token === undefined && fresh) this.#token = null; // as another guest, then
      this.#tell({ type: "authorized" });
    } catch (error) {
      if (asked === this.#asked) this.#tell({ type: "lost", reason: `no token: ${error}` });
    }
  }

  #auth() {
    return { type: "auth", token: this.#token ?? undefined, session: this.#session ?? undefined, link: ++this.#links };
  }

  get #WebSocket() {
    return this.#options.WebSocket ?? globalThis.WebSocket; // none in Node before 22
  }

  #webSocket() {
    return new this.#WebSocket(this.url, ["holdfast.1"]);
  }

  /** @param {boolean} byHttp */
  async #dial(byHttp) {
    const generation = ++this.#generation;
    const isCurrent = () => generation === this.#generation;
    try {
      const socket = byHttp ? await this.#httpSocket() : this.#webSocket();
      if (!isCurrent()) return socket.close();
      socket.onopen = () => isCurrent() && this.#tell({ type: "opened" });
      this.#use(socket);
    } catch (error) {
      if (isCurrent()) this.#tell({ type: "lost", code: 1006, reason: String(error) });
    }
  }

  /** Hear this socket, and no other. @param {any} socket */
  #use(socket) {
    const generation = this.#generation;
    const isCurrent = () => generation === this.#generation;
    const heard = () => isCurrent() && this.#tell({ type: "heard" });
    this.#socket = socket;
    socket.onmessage = (/** @type {{data: string, isLife?: boolean}} */ { data, isLife = true }) => {
      if (isLife) heard();
      if (!isCurrent()) return;
      try {
        this.#received(parsed(data));
      } catch (error) {
        this.#abandon(1000); // its place in the log stays open: to ask for it again at once would be to ask for ever
        this.#tell({ type: "lost", code: 1006, reason: `the server said something that is not in the protocol: ${error}` });
      }
    };
    socket.onclose = (/** @type {{code: number, reason: string}} */ { code, reason }) => {
      if (!isCurrent()) return;
      this.#abandon(1000); // also the one that is being opened beside it
      this.#tell({ type: "lost", code, reason });
    };
    socket.onheard = heard; // of one without a WebSocket
  }

  /** Dial beside the socket that carries; when it is open, go on with that. */
  #move() {
    this.#spare?.close();
    const spare = (this.#spare = this.#webSocket());
    spare.onopen = () => {
      if (spare !== this.#spare) return spare.close();
      this.#spare = null;
      this.#abandon(AWAY);
      this.#use(spare);
      for (const room of this.#rooms.values()) this.#tellOutbox(room, { type: "broken" });
      this.#tell({ type: "moved" });
    };
  }

  async #httpSocket() {
    const { HttpSocket, Reader } = await import("./holdfast-http.js"); // most links never need it
    return new HttpSocket(this.url, this.#token, (this.#reader ??= new Reader()), this.#now);
  }

  /** See whether a WebSocket gets through to the server, and its answer back. */
  #try() {
    if (!this.#WebSocket) return;
    const trial = this.#webSocket();
    const timer = setTimeout(() => trial.close(), 1000 * GREETING_SECONDS);
    trial.onopen = () => trial.send(JSON.stringify(this.#auth()));
    trial.onclose = () => clearTimeout(timer);
    trial.onmessage = () => {
      trial.close();
      this.#tell({ type: "free" });
    };
  }

  /** Let go of the socket, and wait for nothing: a dead one never closes. @param {number} code */
  #abandon(code) {
    this.#generation += 1;
    this.#over.clear();
    this.#lefts.clear();
    const socket = this.#socket;
    this.#socket = null;
    this.#spare?.close();
    this.#spare = null;
    socket?.close(code === 1001 ? AWAY : code); // a page may close only with 1000, or 3000 to 4999
  }

  /** @param {Room} room */
  #join(room) {
    if (room.joinedOn === this.#generation || this.#rooms.get(room.name) !== room) return;
    this.#part(room.name);
    room.joinedOn = this.#generation;
    this.say(room.replica.join(), room.name);
  }

  /** @param {Message} message */
  #received(message) {
    const name = message[this.#roomKey];
    const room = this.#rooms.get(name);
    const lefts = this.#lefts.get(name);
    if (lefts) {
      if (message.type === "left" && !message.reason) this.#lefts.set(name, lefts - 1);
      return;
    }
    switch (message.type) {
      case "connected":
        this.#welcome(message);
        break;
      case "ping":
        if (!message.quiet) this.say({ type: "pong" });
        break;
      case "goodbye":
        this.#tell({ type: "advised", after: message.after_ms / 1000, spread: message.spread_ms / 1000 });
        break;
      case "reply": {
        const { ref, ok, data: value = null, error } = message;
        const answer = this.#answers.get(ref);
        const passing = UNDECIDED.includes(error?.code);
        if (answer) this.#tellOutbox(answer.room, { type: "answered", key: ref, ok, value: ok ? value : error, passing });
        break;
      }
      case "error":
        if (room && PASSING.includes(message.code)) this.#joinAgain(room);
        else if (room) this.#end(room);
        room?.emit("error", /** @type {any} */ (message));
        this.emit("error", /** @type {any} */ (message));
        break;
      default:
        if (room) this.#take(room, room.replica.receive(message));
    }
  }

  /** Join a room anew after a while, once, however often it is refused, unless that has happened. @param {Room} room */
  async #joinAgain(room) {
    const { joinedOn } = room;
    if (room.refusedOn === joinedOn) return;
    room.refusedOn = joinedOn;
    await room.wait();
    if (room.joinedOn !== joinedOn || joinedOn !== this.#generation) return;
    room.joinedOn = room.refusedOn = 0;
    this.#join(room);
  }

  /** @param {Message} message */
  #welcome({ session, roomKey, user, token, heartbeat: { interval, timeout }, limits }) {
    this.#rate = 0.8 * limits.messagesPerSecond; // the rest is for what is no command
    if (session) {
      this.#session = session;
      this.#reader = undefined; // there is a way for a WebSocket: forget what else was barred
    }
    this.#roomKey = roomKey;
    this.user = user;
    if (token && this.#options.token === undefined) {
      this.#token = token;
      this.#link.renewable = true;
    }
    this.#tell({ type: "welcomed", interval, timeout });
    this.emit("connected", user);
  }

  /** @param {Room} room  @param {{items: Message[], ask?: Message}} outcome */
  #take(room, { items, ask }) {
    if (ask) this.say(ask, room.name);
    for (const item of items) {
      switch (item.type) {
        case "left":
          this.#end(room);
          room.emit("left", item);
          break;
        case "resync":
        case "resumed": {
          if (!room.replica.stuck) room.backoff = new Backoff(true);
          const number = ++room.snapshots; // one that is under way is for nothing now
          const isLost = item.type === "resync" && room.snapshot;
          if (isLost) room.replica.hold();
          const isHeeded = room.emit(item.type, /** @type {any} */ (item)) || room.snapshot;
          if (item.type === "resync" && item.reason !== "new" && !isHeeded) report(new Error(`${room.name}: ${item.reason}, and nobody listens to "resync"`));
          this.#tellOutbox(room, { type: "ready", rate: this.#rate });
          if (isLost) this.#takeSnapshot(room, number, item.reason);
        } // and who is here
        case "presence":
        case "user_joined":
        case "user_left":
          room.emit("presence", room.users);
          room.emit("typing", room.typing);
          break;
        case "user_typing":
        case "user_stopped_typing":
          room.emit("typing", room.typing);
          break;
        default:
          room.emit(item.id === undefined ? "broadcast" : "event", item);
      }
    }
  }

  /** Take a snapshot: again until it succeeds, unless it is not wanted any more.
   * @param {Room} room  @param {number} number  @param {string} reason */
  async #takeSnapshot(room, number, reason) {
    const isWanted = () => number === room.snapshots && this.#rooms.get(room.name) === room;
    if (room.replica.stuck) await room.wait();
    while (isWanted()) {
      try {
        const { data, cursor } = await /** @type {Snapshot} */ (room.snapshot)();
        if (!isWanted()) return;
        const ask = room.replica.restart(cursor);
        if (room.joinedOn === this.#generation) this.say(ask, room.name); // else the join on the new link asks for it
        room.emit("snapshot", { data, cursor, reason });
        return;
      } catch (error) {
        this.emit("error", { type: "error", error: `the snapshot failed: ${error}`, code: "snapshot" });
        await room.wait();
      }
    }
  }

  /** The browser's events are hints: they cause a probe or a retry, never a verdict. */
  #watch() {
    if (typeof document === "undefined") return;
    const listen = (/** @type {EventTarget} */ target, /** @type {string} */ type, /** @type {(e: any) => void} */ act) => {
      target.addEventListener(type, act);
      this.#disposers.push(() => target.removeEventListener(type, act));
    };
    const nudge = () => this.#tell({ type: "nudged" });
    listen(window, "online", nudge);
    listen(window, "offline", () => this.#link.state === "live" && nudge());
    listen(window, "focus", nudge);
    listen(document, "visibilitychange", () => document.visibilityState === "visible" && nudge());
    listen(document, "resume", nudge); // Page Lifecycle: on the document, not the window
    listen(window, "pagehide", (event) => event.persisted && this.#tell({ type: "paused" }));
    listen(window, "pageshow", (event) => event.persisted && this.#tell({ type: "unpaused" }));
  }
}

/**
 * @typedef {object} Options
 * @property {string | (() => Promise<string>)} [token]  who you are; a function is asked again, once, after 4001, and in
 *   the next attempt if it has not answered after 60 s
 * @property {"resume" | "snapshot"} [recover]  "snapshot": start afresh after each reconnect
 * @property {boolean} [jitter]  without it, the delays are exactly 1, 2, 4, 8, 16, 30, 30 … seconds
 * @property {string} [roomKey]  what the room's field is called, until the server says it
 * @property {typeof globalThis.WebSocket} [WebSocket]  for Node before 22
 */

/**
 * Return a client of the hub at `url`, which keeps itself connected.
 *
 * @param {string} url  of the WebSocket; may be relative to the page
 * @param {Options} [options]
 */
export function connect(url, options = {}) {
  return new Client(url, options);
}
