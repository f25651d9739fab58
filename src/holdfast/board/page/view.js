// @ts-check
/**
 * How does the board look? Nodes are kept by key and patched, never made anew, so nothing flickers; cards
 * that have come to stand elsewhere slide there.
 */

/** @typedef {import("./model.js").Board} Board */
/** @typedef {import("./model.js").Person} Person */

/** @param {string} id  @returns {any} */
export const byId = (id) => document.getElementById(id);

/** @param {string} id  @returns {any} */
const fromTemplate = (id) => byId(id).content.firstElementChild.cloneNode(true);

/**
 * Make a container's children those of `keys`, in that order; existing ones are moved, not made anew.
 *
 * @template T
 * @param {Element} container  @param {string} attribute  @param {T[]} things  @param {(thing: T) => string} keyOf
 * @param {(thing: T) => HTMLElement} make  @param {(node: any, thing: T) => void} patch
 */
function reconcile(container, attribute, things, keyOf, make, patch) {
  const nodes = new Map([...container.children].map((node) => [node.getAttribute(attribute), node]));
  /** @type {Element | null} */
  let before = null;
  for (const thing of things) {
    const key = keyOf(thing);
    let node = nodes.get(key);
    nodes.delete(key);
    if (!node) {
      node = make(thing);
      node.setAttribute(attribute, key);
    }
    patch(node, thing);
    /** @type {Element | null} */
    const next = before ? before.nextElementSibling : container.firstElementChild;
    if (node !== next) container.insertBefore(node, next);
    before = node;
  }
  for (const [key, node] of nodes) if (key !== null) node.remove();
}

/** @param {Element} node  @param {string} text */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {string} name */
const initials = (name) =>
  name.split(/\s+/).filter(Boolean).map((word) => [...word][0]).slice(0, 2).join("").toUpperCase() || "?";

/** A person's colour, the same on every page. @param {string} id */
const hue = (id) => Math.round([...id].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 9973, 7) * 137.508) % 360;

/** @param {HTMLElement} node  @param {string} id  @param {string} name */
function avatar(node, id, name) {
  write(node, initials(name));
  node.title = name;
  node.style.setProperty("--hue", String(hue(id)));
}

/** @param {Board} board  @param {Person[]} people  @param {string | null} held  the card in somebody's hand here */
export function render(board, people, held) {
  const container = byId("lists");
  const slide = places(container);
  const focused = document.activeElement; // a node that is moved loses it
  container.querySelectorAll(".skeleton").forEach((/** @type {Element} */ node) => node.remove());
  const names = new Map(people.map((person) => [person.id, person.name]));
  const cards = new Map([...container.querySelectorAll("[data-task-id]")].map((card) => [card.getAttribute("data-task-id"), card]));
  const lists = board.inOrder();
  reconcile(container, "data-list-id", lists, (list) => list.id, () => fromTemplate("list-template"), (node, list) => {
    const tasks = board.tasksOf(list.id);
    write(node.querySelector(".list-name"), list.name);
    write(node.querySelector(".count"), String(tasks.length));
    node.setAttribute("aria-label", `${list.name}, ${tasks.length} cards`);
    node.querySelector(".list-left").disabled = list === lists[0];
    node.querySelector(".list-right").disabled = list === lists.at(-1);
    reconcile(node.querySelector(".cards"), "data-task-id", tasks, (task) => task.id,
      (task) => cards.get(task.id) ?? fromTemplate("card-template"), // it may come from another list
      (card, task) => {
        write(card.querySelector(".title"), task.title);
        card.classList.toggle("pending", Boolean(task.pending));
        card.classList.toggle("held", task.id === held);
        write(card.querySelector(".note"), task.description ?? "");
        write(card.querySelector(".id"), task.pending ? "saving…" : task.id);
        const face = card.querySelector(".avatar");
        face.hidden = !task.assigneeId;
        if (task.assigneeId) avatar(face, task.assigneeId, names.get(task.assigneeId) ?? task.assigneeId);
      });
  });
  if (focused instanceof HTMLElement && focused.isConnected && focused !== document.activeElement) {
    focused.focus({ preventScroll: true });
    focused.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  slide();
}

/**
 * Remember where every card is; returns what lets those that moved slide, as far as anybody can see them. All is
 * read before anything is animated: else the browser would lay the whole board out again for each card.
 *
 * @param {Element} container
 */
function places(container) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return () => {};
  const before = new Map();
  for (const card of /** @type {NodeListOf<HTMLElement>} */ (container.querySelectorAll(".card"))) {
    before.set(card, { box: card.getBoundingClientRect(), list: card.parentElement, top: card.offsetTop });
  }
  const isSeen = (/** @type {DOMRect} */ box) => box.bottom > 0 && box.top < innerHeight;
  return () => {
    const moved = new Map([...before].filter(([card, { list, top }]) => card.isConnected && (card.parentElement !== list || card.offsetTop !== top)));
    for (const animation of container.getAnimations({ subtree: true })) { // it goes on from where it is seen
      if (moved.has(/** @type {KeyframeEffect} */ (animation.effect).target)) animation.cancel();
    }
    const slides = [...moved].map(([card, { box }]) => ({ card, box, now: card.getBoundingClientRect() }));
    for (const { card, box, now } of slides.filter(({ box, now }) => isSeen(box) || isSeen(now))) {
      const from = `${box.left - now.left}px ${box.top - now.top}px`;
      card.animate([{ translate: from }, { translate: "0 0" }], { duration: 180, easing: "ease-out" });
    }
  };
}

/** @param {{userId: string, name: string}} user */
export function renderMe({ userId, name }) {
  const [face, words] = byId("me").children;
  avatar(face, userId, name);
  write(words, name);
}

/** @param {{userId: string, name: string}[]} users  @param {string | undefined} self */
export function renderPresence(users, self) {
  const shown = users.slice(0, 6);
  const container = byId("presence");
  reconcile(container, "data-user-id", shown, (user) => user.userId, () => document.createElement("li"), (node, user) => {
    avatar(node, user.userId, user.name);
    if (user.userId === self) node.title += " (you)";
    node.classList.toggle("self", user.userId === self);
  });
  container.querySelector(".more")?.remove();
  if (users.length > shown.length) {
    const more = document.createElement("li");
    more.className = "more";
    more.textContent = `+${users.length - shown.length}`;
    more.title = users.slice(6).map((user) => user.name).join(", ");
    container.append(more);
  }
}

/** @param {string[]} names */
export function renderTyping(names) {
  const text = names.length > 2 ? `${names.length} people are typing…` : names.join(" and ");
  write(byId("typing"), names.length === 0 ? "" : names.length > 2 ? text : `${text} ${names.length > 1 ? "are" : "is"} typing…`);
}

/** Tell the truth about the link. @param {any} status  @param {number} unanswered  changes that are on their way */
export function renderStatus(status, unanswered) {
  const node = byId("status");
  node.dataset.state = document.body.dataset.link = status.state;
  node.dataset.attempt = String(status.attempt);
  node.dataset.ceiling = String(status.ceiling);
  const byHttp = status.state === "live" && status.road === "http";
  const hint = byHttp ? "No WebSocket gets through here. Changes arrive all the same; who is here cannot be shown." : "";
  node.title = status.reason ? `${status.reason} (${status.code})` : hint;
  byId("retry-now").hidden = status.state !== "waiting";
  const seconds = status.retryAt === null ? 0 : Math.max(0, Math.ceil(status.retryAt - Date.now() / 1000));
  const most = status.delay === status.ceiling ? "" : `, at most ${Math.ceil(status.ceiling)} s`;
  const words = {
    live: byHttp ? "Live by HTTP" : "Live",
    connecting: status.everLive ? "Reconnecting…" : "Connecting…",
    waiting: `${navigator.onLine ? "Reconnecting" : "Offline; trying"} in ${seconds} s (attempt ${status.attempt}${most})`,
    closed: status.code === 4001 ? "Signed out" : "Disconnected",
  };
  const unsent = unanswered && status.state !== "live" ? ` · ${unanswered} unsent` : "";
  write(byId("status-text"), words[/** @type {keyof typeof words} */ (status.state)] + unsent);
}

/** @param {string} message  @param {{label: string, act: () => void}} [action] */
export function toast(message, action) {
  const node = document.createElement("div");
  node.className = "toast";
  node.append(message);
  const remove = () => node.remove();
  if (action) {
    const button = document.createElement("button");
    button.textContent = action.label;
    button.onclick = () => (remove(), action.act());
    node.append(button);
  }
  byId("toasts").append(node);
  setTimeout(remove, 6000);
  return remove;
}

/** @param {string} words */
export function announce(words) {
  write(byId("announcer"), words);
}
