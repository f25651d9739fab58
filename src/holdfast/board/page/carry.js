// @ts-check
/**
 * How is a card carried: by mouse, by finger (after a moment, so that a swipe still scrolls), by keys?
 *
 * All three end the same way: `drop(id, listId, position)`.
 */

const HOLD_MS = 220;
const SLOP = 6;

/**
 * @param {HTMLElement} root
 * @param {{open: (id: string) => void, drop: (id: string, listId: string, position: number) => void,
 *   lift: (id: string | null) => void, place: (id: string) => {listId: string, position: number} | null,
 *   lists: () => {id: string, name: string, size: number}[], say: (words: string) => void}} hands
 */
export function carryCards(root, hands) {
  pointer(root, hands);
  keys(root, hands);
}

/** @param {HTMLElement} root  @param {Parameters<typeof carryCards>[1]} hands */
function pointer(root, hands) {
  let carried = false; // a click that ended a drag opens nothing
  root.addEventListener("click", (event) => {
    const card = cardOf(event);
    if (card && !carried) hands.open(card.dataset.taskId ?? "");
    carried = false;
  });
  root.addEventListener("contextmenu", (event) => carried && event.preventDefault());
  root.addEventListener("pointerdown", (down) => {
    const card = cardOf(down);
    if (!card || down.button !== 0) return;
    carried = false;
    const box = card.getBoundingClientRect();
    /** @type {HTMLElement | null} */
    let flying = null;
    let [x, y] = [down.clientX, down.clientY];
    let frame = 0;
    const take = () => {
      carried = true;
      flying = /** @type {HTMLElement} */ (card.cloneNode(true));
      flying.removeAttribute("data-task-id");
      flying.classList.add("flying", "lifted");
      flying.style.width = `${box.width}px`;
      document.body.append(flying);
      card.classList.add("ghost");
      follow();
    };
    const follow = () => {
      if (!flying) return;
      flying.style.left = `${x - (down.clientX - box.left)}px`;
      flying.style.top = `${y - (down.clientY - box.top)}px`;
      makeWay(root, card, x, y);
      scrollNearEdges(root, x, y);
      frame = requestAnimationFrame(follow);
    };
    const holding = down.pointerType === "mouse" ? undefined : setTimeout(take, HOLD_MS);
    const move = (/** @type {PointerEvent} */ event) => {
      [x, y] = [event.clientX, event.clientY];
      if (flying || Math.hypot(x - down.clientX, y - down.clientY) < SLOP) return;
      if (holding === undefined) take();
      else end(); // the finger swipes
    };
    const hold = (/** @type {Event} */ event) => flying && event.preventDefault();
    const end = (/** @type {Event | undefined} */ event = undefined) => {
      clearTimeout(holding);
      cancelAnimationFrame(frame);
      stop.abort();
      flying?.remove();
      card.classList.remove("ghost");
      if (!flying) return;
      const list = card.closest("[data-list-id]");
      const position = [...(card.parentElement?.children ?? [])].indexOf(card);
      const dropped = event?.type === "pointerup" && list;
      hands.drop(card.dataset.taskId ?? "", dropped ? list.getAttribute("data-list-id") ?? "" : "", dropped ? position : -1);
    };
    const stop = new AbortController();
    const { signal } = stop;
    window.addEventListener("pointermove", move, { signal });
    window.addEventListener("pointerup", end, { signal });
    window.addEventListener("pointercancel", end, { signal });
    window.addEventListener("keydown", (event) => event.key === "Escape" && end(event), { signal });
    window.addEventListener("touchmove", hold, { signal, passive: false });
    // The browser's own drag of links and text would take over.
    window.addEventListener("dragstart", (event) => event.preventDefault(), { signal });
  });
}

/** Show where the card would land: it stands there already. @param {HTMLElement} root  @param {HTMLElement} card
 * @param {number} x  @param {number} y */
function makeWay(root, card, x, y) {
  const lists = [...root.querySelectorAll("[data-list-id]")];
  const list = lists.find((one) => {
    const box = one.getBoundingClientRect();
    return x >= box.left && x <= box.right;
  });
  const cards = list?.querySelector(".cards");
  if (!cards) return;
  const others = [...cards.children].filter((other) => other !== card);
  const next = others.find((other) => {
    const box = other.getBoundingClientRect();
    return y < box.top + box.height / 2;
  });
  const before = next ?? null;
  if (card.parentElement !== cards || card.nextElementSibling !== before) cards.insertBefore(card, before);
}

/** @param {HTMLElement} root  @param {number} x  @param {number} y */
function scrollNearEdges(root, x, y) {
  const edge = 48;
  const box = root.getBoundingClientRect();
  if (x < box.left + edge) root.scrollLeft -= 12;
  if (x > box.right - edge) root.scrollLeft += 12;
  const cards = document.elementFromPoint(x, y)?.closest("[data-list-id]")?.querySelector(".cards");
  const inner = cards?.getBoundingClientRect();
  if (!cards || !inner) return;
  if (y < inner.top + edge) cards.scrollTop -= 9;
  if (y > inner.bottom - edge) cards.scrollTop += 9;
}

/** @param {HTMLElement} root  @param {Parameters<typeof carryCards>[1]} hands */
function keys(root, hands) {
  /** @type {{id: string, listId: string, position: number} | null} */
  let held = null;
  const put = (/** @type {boolean} */ down) => {
    if (!held) return;
    const { id, listId, position } = held;
    held = null;
    hands.drop(id, down ? listId : "", position);
    hands.lift(null);
    hands.say(down ? "Dropped." : "Put back.");
  };
  root.addEventListener("focusout", () => setTimeout(() => held && !cardOf({ target: document.activeElement }) && put(false)));
  root.addEventListener("keydown", (event) => {
    const card = cardOf(event);
    if (!card || event.target !== card) return;
    const id = card.dataset.taskId ?? "";
    if (!held && event.key === "Enter") {
      event.preventDefault();
      hands.open(id);
    } else if (!held && event.key === " ") {
      event.preventDefault();
      const place = hands.place(id);
      if (!place) return;
      held = { id, ...place };
      hands.lift(id);
      hands.say("Lifted. Arrows move, Enter drops, Escape puts it back.");
    } else if (held && ["Enter", " "].includes(event.key)) {
      event.preventDefault();
      put(true);
    } else if (held && event.key === "Escape") {
      put(false);
    } else if (event.key.startsWith("Arrow")) {
      event.preventDefault();
      if (held) carry(event.key);
      else walk(card, event.key);
    }
  });

  /** @param {string} key */
  function carry(key) {
    if (!held) return;
    const lists = hands.lists();
    const at = lists.findIndex((list) => list.id === held?.listId);
    const to = at + (key === "ArrowRight" ? 1 : key === "ArrowLeft" ? -1 : 0);
    if (to < 0 || to >= lists.length) return;
    const own = hands.place(held.id)?.listId === lists[to].id ? 1 : 0;
    const room = lists[to].size - own;
    const wanted = held.position + (key === "ArrowDown" ? 1 : key === "ArrowUp" ? -1 : 0);
    const position = Math.max(0, Math.min(room, to === at ? wanted : Math.min(held.position, room)));
    held = { ...held, listId: lists[to].id, position };
    const cards = root.querySelector(`[data-list-id="${CSS.escape(held.listId)}"] .cards`);
    const card = root.querySelector(`[data-task-id="${CSS.escape(held.id)}"]`);
    if (!cards || !(card instanceof HTMLElement)) return;
    const others = [...cards.children].filter((other) => other !== card);
    cards.insertBefore(card, others[position] ?? null);
    card.focus();
    card.scrollIntoView({ block: "nearest", inline: "nearest" });
    hands.say(`${lists[to].name}, position ${position + 1} of ${room + 1}`);
  }

  /** @param {HTMLElement} card  @param {string} key */
  function walk(card, key) {
    const lists = [...root.querySelectorAll("[data-list-id]")];
    const at = lists.findIndex((list) => list.contains(card));
    const index = [...(card.parentElement?.children ?? [])].indexOf(card);
    const list = lists[at + (key === "ArrowRight" ? 1 : key === "ArrowLeft" ? -1 : 0)];
    const cards = list?.querySelectorAll(".card") ?? [];
    const to = key === "ArrowDown" ? index + 1 : key === "ArrowUp" ? index - 1 : Math.min(index, cards.length - 1);
    const next = cards[to];
    if (next instanceof HTMLElement) next.focus();
  }
}

/** @param {{target: EventTarget | null}} event  @returns {HTMLElement | null} */
function cardOf(event) {
  return event.target instanceof Element ? event.target.closest("[data-task-id]") : null;
}
