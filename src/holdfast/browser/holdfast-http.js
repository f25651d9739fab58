// @ts-check
/**
 * The roads of holdfast without a WebSocket: event streams, long and short polls. `holdfast.js` loads this module
 * where it needs it. As there, the upper half decides and the lower half carries it out. All times are seconds.
 */
import { position } from "./holdfast.js";

/** @typedef {import("./holdfast.js").Message} Message */

const STREAM_SECONDS = 3;
const HOLD_SECONDS = 15;
const SHORT_SECONDS = 3;
const BREAKS = 2;
const ROOMS = 32;
const LONGEST_MS = 3_600_000; // that whoever answers sends anybody away for
const ANSWER_LENGTH = 64 * 1024 * 1024; // of an answer, and of an event in a stream
const REFUSAL_LENGTH = 64 * 1024; // more is not read to see which room is refused
const ANSWER_SECONDS = 30; // for an answer to what was said: else a connection that fell silent holds it for ever

/** @typedef {{type: "ask" | "tell" | "give_up", how?: string, rooms?: string[], cursor?: string | null, wait?: number,
 *   message?: Message, reason?: string}} ReaderEffect */

/**
 * What does a client read that has no WebSocket, and what would a WebSocket have said? It asks what follows its
 * cursor: as an event stream; where that is held back, as polls that wait; where those are cut, as short ones.
 */
export class Reader {
  roomKey = "room";
  how = "stream";
  #breaks = 0;
  /** @type {Map<string, {epoch: string, offset: number} | null>} */ #positions = new Map(); // null: at the head
  /** @type {Map<string, string>} */ #wanted = new Map(); // join or sync, to be answered, and not asked yet
  /** @type {Map<string, string>} */ #asked = new Map(); // to be answered by what is asked now
  /** @type {string | undefined} */ #epoch; // of the cursor: what stands in another one is not asked about
  #wait = 0;
  #askedAt = 0;
  /** @type {number | null} */ #alarm = null;

  /** Read nothing yet, on a new link. */
  begin() {
    for (const known of [this.#positions, this.#wanted, this.#asked]) known.clear();
    this.#alarm = null;
  }

  /** Take in what is wanted (`join`, `leave`, `sync`, `again`), or what came (`answer`, `barred`, `broken`; `error`: why
   * one of the rooms that were asked for is refused; the others were not answered, either).
   * @param {{type: string, room?: any, since?: string, messages?: Message[], cursor?: any, reason?: string, error?: string,
   *   code?: string}} input
   * @param {number} now  @returns {ReaderEffect[]} */
  receive({ type, room, since, messages = [], cursor, reason, error, code }, now) {
    const isKnown = this.#positions.has(room);
    /** @param {any} error  @param {any} code  @returns {ReaderEffect} */
    const refusal = (error, code) => ({ type: "tell", message: { type: "error", error, code, [this.roomKey]: room } });
    if (!isKnown && type === "sync") return [refusal(`you are not in ${room}; join it first`, "conflict")];
    switch (type) {
      case "join":
      case "sync":
        if (!isKnown && this.#positions.size >= ROOMS) {
          return [refusal(`without a WebSocket, a client is in at most ${ROOMS} rooms`, "too_many")];
        }
        this.#positions.set(room, since === undefined ? null : position(since, room));
        const still = this.#wanted.get(room) ?? this.#asked.get(room);
        this.#wanted.set(room, still === "join" ? still : type); // a snapshot may overtake a join
        this.#alarm = now; // with whatever else is wanted now
        return [];
      case "leave":
        if (isKnown) this.#alarm = now;
        this.#forget(room);
        return [{ type: "tell", message: { type: "left", [this.roomKey]: room } }];
      case "again":
        return this.#ask(now);
      case "answer":
        return this.#answered(messages, cursor, now);
      case "error":
        if (!isKnown || this.#wanted.has(room)) return this.#ask(now); // it was left, or is asked about anew
        this.#forget(room);
        return [refusal(error, code), ...this.#ask(now)];
      case "barred":
        if (this.how === "stream") {
          this.how = "held";
          return this.#ask(now);
        }
    }
    this.#alarm = null;
    if (++this.#breaks >= BREAKS) {
      this.#breaks = 0;
      this.how = this.how === "stream" ? "held" : "short";
    }
    return [{ type: "give_up", ...(reason && { reason }) }];
  }

  /** Ask about it no more. @param {string} room */
  #forget(room) {
    for (const known of [this.#positions, this.#wanted, this.#asked]) known.delete(room);
  }

  /** @param {number} now  @returns {ReaderEffect[]} */
  tick(now) {
    if (this.#alarm === null || now < this.#alarm) return [];
    if (this.how === "stream" && this.#asked.size > 0 && this.#wanted.size === 0) this.how = "held";
    return this.#ask(now);
  }

  /** When `tick` is due next. */
  deadline() {
    return this.#alarm;
  }

  /** @param {number} now  @returns {ReaderEffect[]} */
  #ask(now, wait = 0) {
    for (const [room, type] of this.#wanted) this.#asked.set(room, type);
    this.#wanted.clear();
    this.#wait = wait;
    this.#askedAt = now;
    this.#alarm = this.how === "stream" && this.#asked.size > 0 ? now + STREAM_SECONDS : null;
    this.#epoch = undefined; // that of the first
    const offsets = [];
    for (const [room, at] of this.#positions) {
      if (at && at.epoch === (this.#epoch ??= at.epoch)) offsets.push(`${encodeURIComponent(room)}=${at.offset}`);
    }
    const cursor = offsets[0] ? `${this.#epoch}:${offsets.join(";")}` : null;
    return [{ type: "ask", how: this.how, rooms: [...this.#positions.keys()], cursor, wait }];
  }

  /** @param {Message[]} messages  @param {string} cursor  @param {number} now  @returns {ReaderEffect[]} */
  #answered(messages, cursor, now) {
    let reach = 0; // of all rooms, beyond where they stood: who is led back and forth, or on by gaps, gets no further
    const gaps = new Map(messages.filter(({ type }) => type === "resync").map((gap) => [gap[this.roomKey], gap.reason]));
    /** @type {ReaderEffect[]} */
    const effects = [];
    const [epoch] = cursor.split(":");
    for (const [room, at] of this.#positions) {
      // It is the others' epoch that is gone: of its own it was not asked.
      if (at?.epoch === epoch && epoch !== this.#epoch) this.#wanted.set(room, this.#wanted.get(room) ?? this.#asked.get(room) ?? "sync");
      if (at && at.epoch !== epoch) gaps.set(room, "epoch");
      // Else it is asked about anew.
      if (!this.#wanted.has(room) && (this.#asked.has(room) || gaps.has(room))) effects.push({ type: "tell", message: this.#entered(room, gaps.get(room), cursor) });
      reach -= Math.max(at?.offset ?? 0, this.#positions.get(room)?.offset ?? 0);
    }
    this.#epoch = epoch;
    for (const message of messages) {
      const room = message[this.roomKey];
      if (this.#wanted.has(room)) continue;
      if (message.id !== undefined && this.#positions.has(room)) {
        const at = position(message.id, room);
        if (at.epoch !== epoch) throw new Error(`${message.id} in ${epoch}`);
        this.#positions.set(room, at);
      }
      if (message.type !== "resync") effects.push({ type: "tell", message });
    }
    if (this.how === "stream" || this.#wait) this.#breaks = 0;
    for (const at of this.#positions.values()) reach += at?.offset ?? 0;
    if (this.how === "stream") this.#alarm = this.#wanted.size ? now : null;
    else if (this.#wanted.size) effects.push(...this.#ask(now));
    // Whatever it says, it would say it again at once. A poll of ours tells what is in the log: no broadcast is lost by it.
    else if (this.#wait && reach <= 0 && now < this.#askedAt + SHORT_SECONDS) this.#alarm = this.#askedAt + SHORT_SECONDS;
    else if (this.how === "held") effects.push(...this.#ask(now, HOLD_SECONDS));
    else this.#alarm = now + SHORT_SECONDS;
    return effects;
  }

  /** The answer to a join or a sync, or what is told of a gap.
   * @param {string} room  @param {string | undefined} reason  @param {string} head  @returns {Message} */
  #entered(room, reason, head) {
    const since = this.#positions.get(room);
    const recovered = !!since && reason === undefined;
    const stands = recovered ? since : position(head, room);
    const cursor = `${stands.epoch}:${stands.offset}`;
    const joins = this.#asked.get(room) === "join";
    this.#positions.set(room, stands);
    this.#asked.delete(room);
    const about = { [this.roomKey]: room, cursor, ...(reason && { reason }) };
    if (joins) return { type: "joined", ...about, recovered, users: [], roomSize: 0 };
    return reason === undefined ? { type: "synced", ...about, count: 0 } : { type: "resync", ...about };
  }
}

// ── the hands ────────────────────────────────────────────────────────────────────────────────────

const CODES = { 401: 4001, 403: 4003, 429: 1013, 503: 1013 }; // statuses about us, or about when, not about the way

/** @param {unknown} milliseconds  said by whoever has answered: it may be any proxy */
const bearable = (milliseconds) => Math.min(Math.max(0, Number(milliseconds) || 0), LONGEST_MS);

/** In how many milliseconds somebody may come back; 0: it is not said. @param {Response} response */
const retryAfter = ({ headers }) => bearable(1000 * Number(headers.get("retry-after")));

/** What the server answers to what has no `ref`. */
const WORDS = ["connected", "pong", "error"];

/** Yield what comes, as text. @param {Response} response */
async function* parts(response) {
  const body = /** @type {ReadableStream} */ (response.body).getReader();
  const decoder = new TextDecoder();
  try {
    for (let part; !(part = await body.read()).done; ) yield decoder.decode(part.value, { stream: true });
  } finally {
    body.cancel().catch(() => {});
  }
}

/** Return all of an answer; throws if there is no end of it. @param {Response} response  @param {number} [most] */
async function whole(response, most) {
  let text = "";
  for await (const part of parts(response)) text = bounded(text + part, most);
  return text;
}

/** @param {string} text */
function bounded(text, most = ANSWER_LENGTH) {
  if (text.length > most) throw new Error(`an answer of more than ${most} characters`);
  return text;
}

/** @param {string} text */
function json(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

/** A link without a WebSocket, and in its likeness: `…/send` for what is said, `…/events` or `…/poll` for what is heard. */
export class HttpSocket {
  readyState = 0;
  #reader;
  #url;
  #headers;
  #now;
  #asking = new AbortController();
  #reading = false;
  /** @type {Promise<any>} */ #said = Promise.resolve();
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  onopen = () => {};
  onheard = () => {};
  /** @type {(event: {data: string, isLife?: boolean}) => void} */ onmessage = () => {};
  /** @type {(event: {code: number, reason: string}) => void} */ onclose = () => {};

  /** @param {URL} url  of the WebSocket  @param {string | null} token  @param {Reader} reader  @param {() => number} now */
  constructor(url, token, reader, now) {
    this.#url = url;
    this.#headers = token === null ? {} : { authorization: `Bearer ${token}` };
    this.#reader = reader;
    this.#now = now;
    reader.begin();
    setTimeout(() => {
      if (this.readyState !== 0) return;
      this.readyState = 1;
      this.onopen();
    });
  }

  /** @param {string} text */
  send(text) {
    const message = JSON.parse(text);
    if (["join", "leave", "sync"].includes(message.type)) this.#tell({ ...message, room: message[this.#reader.roomKey] });
    else if (message.type === "ping" && this.#reading) this.#tell({ type: "again" });
    else if (message.type !== "pong") this.#said = this.#said.then(() => this.#post(text));
  }

  close() {
    this.readyState = 3;
    this.#asking.abort();
    clearTimeout(this.#timer);
  }

  /** @param {number} code  @param {string} reason */
  #lose(code, reason) {
    if (this.readyState === 3) return;
    this.close();
    this.onclose({ code, reason });
  }

  /** @param {string} name  @param {Record<string, any>} query  @param {any} options */
  #fetch(name, query, options) {
    const url = new URL(name, this.#url);
    url.protocol = url.protocol.replace("ws", "http");
    url.search = String(new URLSearchParams([...this.#url.searchParams, ...Object.entries(query)]));
    // What is said is for this server only: a token is said.
    return fetch(url, { cache: "no-store", redirect: "error", ...options, headers: this.#headers });
  }

  /** @param {Response} response */
  #refused(response) {
    const after = retryAfter(response);
    if (after) this.#hear({ type: "goodbye", after_ms: after, spread_ms: after });
    this.#lose(CODES[/** @type {401} */ (response.status)] ?? 1006, `HTTP ${response.status}`);
  }

  /** @param {any} message  @param {boolean} isLife  whether it says that the link is alive */
  #hear(message, isLife = true) {
    if (message.type === "connected") {
      this.#reader.roomKey = message.roomKey;
      if (message.token) this.#headers = { authorization: `Bearer ${message.token}` }; // else each request is another guest's
    }
    if (this.readyState === 1) this.onmessage({ data: JSON.stringify(message), isLife });
  }

  /** @param {string} text  @returns {Promise<void>} */
  async #post(text) {
    if (this.readyState !== 1) return;
    try {
      const response = await this.#fetch("send", {}, {
        method: "POST",
        body: text,
        signal: AbortSignal.timeout(1000 * ANSWER_SECONDS),
      });
      const answer = json(await whole(response));
      const isLife = !this.#reading; // else what is read says whether the link is alive
      const { status, ok } = response;
      const { ref, type } = JSON.parse(text);
      const wait = retryAfter(response);
      if (status === 429 && type !== "auth" && wait && wait <= 1000 * ANSWER_SECONDS) {
        await new Promise((resolve) => setTimeout(resolve, wait)); // it was too much, for now
        return this.#post(text);
      }
      const refused = { error: String(answer.error ?? `HTTP ${status}`), code: "refused" };
      const isAnswer = ref ? answer.type === "reply" && answer.ref === ref : WORDS.includes(answer.type);
      if (isAnswer) this.#hear(answer, isLife);
      else if (status in CODES || type === "auth") this.#refused(response);
      else if (ok && !ref) isLife && this.onheard();
      else if (!ref) this.#hear({ type: "error", ...refused }, isLife);
      else if (status >= 400 && status < 500 && status !== 408) this.#hear({ type: "reply", ref, ok: false, error: refused }, isLife);
      else this.#refused(response); // somebody else has answered, and does not know what became of it
    } catch (error) {
      this.#lose(1006, String(error));
    }
  }

  /** @param {any} input  what happened; null: time has passed */
  #tell(input) {
    if (this.readyState !== 1) return;
    const now = this.#now();
    for (const effect of input ? this.#reader.receive(input, now) : this.#reader.tick(now)) {
      if (effect.type === "tell") this.#hear(effect.message);
      if (effect.type === "give_up") return this.#lose(1006, effect.reason ?? "the answer broke off");
      if (effect.type === "ask") this.#ask(effect);
    }
    clearTimeout(this.#timer);
    const deadline = this.#reader.deadline();
    if (deadline !== null) this.#timer = setTimeout(() => this.#tell(null), Math.max(0, 1000 * (deadline - now)) + 1);
  }

  /** @param {any} effect */
  async #ask({ how, rooms, cursor, wait }) {
    this.#asking.abort();
    const { signal } = (this.#asking = new AbortController());
    this.#reading = rooms.length > 0;
    if (!this.#reading) return;
    const query = { rooms: rooms.map(encodeURIComponent).join(), ...(cursor && { cursor }), ...(how !== "stream" && { wait }) };
    const tell = (/** @type {any} */ input) => signal.aborted || this.#tell(input);
    const tellRefusal = (/** @type {string} */ text) => {
      const { [this.#reader.roomKey]: room, type, error, code } = json(text);
      if (type !== "error" || !rooms.includes(room)) return false;
      tell({ type, room, error, code });
      return true;
    };
    try {
      const response = await this.#fetch(how === "stream" ? "events" : "poll", query, { signal });
      if (!response.ok) {
        if (tellRefusal(await whole(response, REFUSAL_LENGTH).catch(() => "")) || signal.aborted) return;
        if (response.status in CODES) this.#refused(response);
        else tell({ type: "barred", reason: `HTTP ${response.status}` });
      } else if (how === "stream") {
        await this.#stream(response, tell, tellRefusal);
      } else {
        const { data, cursor } = JSON.parse(await whole(response));
        this.onheard();
        tell({ type: "answer", messages: data, cursor });
      }
    } catch (error) {
      tell({ type: "broken", reason: String(error) });
    }
  }

  /** @param {Response} response  @param {(input: any) => void} tell  @param {(text: string) => boolean} tellRefusal */
  async #stream(response, tell, tellRefusal) {
    let text = "";
    let end = ""; // of the text: only where an event ends is all of it looked at
    let retry = 0;
    let answered = false;
    /** @type {Message[]} */
    let messages = [];
    for await (const part of parts(response)) {
      this.onheard();
      text = bounded(text + part);
      end = (end + part).slice(-part.length - 3);
      if (!/\n\r?\n/.test(end)) continue;
      const events = text.split(/\r?\n\r?\n/);
      text = end = events.pop() ?? "";
      for (const event of events) {
        const fields = Object.fromEntries(event.split(/\r?\n/).map((line) => line.split(/: ?(.*)/s)));
        retry = fields.retry ?? retry;
        if (fields.event) messages.push(JSON.parse(fields.data)); // without it: our `connected`, or an id alone
        else if (tellRefusal(fields.data)) return;
        if (fields.id) {
          tell({ type: "answer", messages: messages.splice(0), cursor: fields.id }); // of several gaps, the last moves on
          answered = true;
        } else if (messages.length > ROOMS) {
          throw new Error("more gaps than rooms");
        }
      }
    }
    this.#hear({ type: "goodbye", after_ms: bearable(retry), spread_ms: 0 });
    if (answered) tell({ type: "broken" });
    else this.#lose(1013, "the server takes nobody in now");
  }
}
