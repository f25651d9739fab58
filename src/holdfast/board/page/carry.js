// @ts-check
/**
 * How is a card carried: by mouse, by finger (after a moment, so that a swipe still scrolls), by keys?
 *
 * All three say where it would come to stand (`carry`), and in the end where it does (`drop`).
 */

/** @typedef {{listId: string, position: number}} Place  `position` counts without the card itself. */
/**
 * @typedef {object} Hands
 * @property {(id: string) => void} open
 * @property {(id: string, place: Place) => void} carry  show the card as if it stood there
 * @property {(id: string, place: Place | null) => void} drop  put it there; null: back where it was
 * @property {(id: string) => Place | null} place
 * @property {() => {id: string, name: string, size: number}[]} lists  in their order
 * @property {(words: string) => void} say  to those who listen to the page
 */

const HOLD_MS = 220;
const SLOP = 6;
const EDGE = 48;

/** @param {HTMLElement} root  @param {Hands} hands */
export function carryCards(root, hands) {
  pointer(root, hands);
  keys(root, hands);
}

/** @param {HTMLElement} root  @param {Hands} hands */
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
    const id = card.dataset.taskId ?? "";
    const box = card.getBoundingClientRect();
    /** @type {HTMLElement | null} */
    let flying = null;
    let place = hands.place(id);
    if (!place) return;
    let [x, y] = [down.clientX, down.clientY];
    let frame = 0;
    const take = () => {
      carried = true;
      flying = fly(card, box);
      if (place) hands.carry(id, place);
      follow();
    };
    const follow = () => {
      if (!flying) return;
      flying.style.translate = `${x - down.clientX}px ${y - down.clientY}px`;
      scrollNearEdges(root, x, y);
      const here = placeAt(root, id, x, y);
      if (here && !(here.listId === place?.listId && here.position === place.position)) hands.carry(id, (place = here));
      frame = requestAnimationFrame(follow);
    };
    const holding = down.pointerType === "mouse" ? undefined : setTimeout(take, HOLD_MS);
    const end = (/** @type {Event | undefined} */ event = undefined) => {
      clearTimeout(holding);
      cancelAnimationFrame(frame);
      stop.abort();
      if (!flying) return;
      flying.remove();
      document.body.classList.remove("carrying");
      hands.drop(id, event?.type === "pointerup" ? place : null);
    };
    const move = (/** @type {PointerEvent} */ event) => {
      [x, y] = [event.clientX, event.clientY];
      if (flying || Math.hypot(x - down.clientX, y - down.clientY) < SLOP) return;
      if (holding === undefined) take();
      else end(); // the finger swipes
    };
    const stop = new AbortController();
    const { signal } = stop;
    window.addEventListener("pointermove", move, { signal });
    window.addEventListener("pointerup", end, { signal });
    window.addEventListener("pointercancel", end, { signal });
    window.addEventListener("keydown", (event) => event.key === "Escape" && end(event), { signal });
    // The browser's own ways to drag would take over: it scrolls under a finger, it drags links and text.
    window.addEventListener("touchmove", (event) => flying && event.preventDefault(), { signal, passive: false });
    window.addEventListener("dragstart", (event) => event.preventDefault(), { signal });
  });
}

/** Make what is seen in the hand. @param {HTMLElement} card  @param {DOMRect} box  @returns {HTMLElement} */
function fly(card, box) {
  const flying = /** @type {HTMLElement} */ (card.cloneNode(true));
  flying.removeAttribute("data-task-id");
  flying.classList.add("flying");
  Object.assign(flying.style, { left: `${box.left}px`, top: `${box.top}px`, width: `${box.width}px` });
  document.body.append(flying);
  document.body.classList.add("carrying");
  return flying;
}

/**
 * Where would the card come to stand? Asked of the layout alone, for cards that make way are still sliding.
 *
 * @param {HTMLElement} root  @param {string} id  @param {number} x  @param {number} y  @returns {Place | null}
 */
function placeAt(root, id, x, y) {
  for (const list of root.querySelectorAll("[data-list-id]")) {
    const box = list.getBoundingClientRect();
    const cards = list.querySelector(".cards");
    if (x < box.left || x > box.right || !cards) continue;
    const inside = y - cards.getBoundingClientRect().top + cards.scrollTop;
    const others = /** @type {HTMLElement[]} */ ([...cards.children]).filter((card) => card.dataset.taskId !== id);
    const next = others.findIndex((card) => inside < card.offsetTop + card.offsetHeight / 2);
    return { listId: list.getAttribute("data-list-id") ?? "", position: next < 0 ? others.length : next };
  }
  return null;
}

/** @param {HTMLElement} root  @param {number} x  @param {number} y */
function scrollNearEdges(root, x, y) {
  const box = root.getBoundingClientRect();
  if (x < box.left + EDGE) root.scrollLeft -= 12;
  if (x > box.right - EDGE) root.scrollLeft += 12;
  const cards = document.elementFromPoint(x, y)?.closest("[data-list-id]")?.querySelector(".cards");
  const inner = cards?.getBoundingClientRect();
  if (!cards || !inner) return;
  if (y < inner.top + EDGE) cards.scrollTop -= 9;
  if (y > inner.bottom - EDGE) cards.scrollTop += 9;
}

/** @param {HTMLElement} root  @param {Hands} hands */
function keys(root, hands) {
  /** @type {{id: string, place: Place} | null} */
  let held = null;
  const put = (/** @type {boolean} */ down) => {
    if (!held) return;
    const { id, place } = held;
    held = null;
    hands.drop(id, down ? place : null);
    hands.say(down ? "Dropped." : "Put back.");
  };
  const lift = (/** @type {string} */ id) => {
    const place = hands.place(id);
    if (!place) return;
    held = { id, place };
    hands.carry(id, place);
    hands.say("Lifted. Arrows move, Enter drops, Escape puts it back.");
  };
  const carry = (/** @type {string} */ key) => {
    if (!held) return;
    const { id, place } = held;
    const lists = hands.lists();
    const at = lists.findIndex((list) => list.id === place.listId);
    const list = lists[at + (key === "ArrowRight" ? 1 : key === "ArrowLeft" ? -1 : 0)];
    if (!list) return;
    const end = list.id === place.listId ? list.size - 1 : list.size; // it counts there already
    const wanted = place.position + (key === "ArrowDown" ? 1 : key === "ArrowUp" ? -1 : 0);
    held.place = { listId: list.id, position: Math.max(0, Math.min(wanted, end)) };
    hands.carry(id, held.place);
    hands.say(`${list.name}, position ${held.place.position + 1} of ${end + 1}`);
  };
  // A card that is moved loses the focus, and has it again as soon as it is drawn.
  const isElsewhere = () => held && cardOf({ target: document.activeElement })?.dataset.taskId !== held.id;
  root.addEventListener("focusout", () => setTimeout(() => isElsewhere() && put(false)));
  root.addEventListener("keydown", (event) => {
    const card = cardOf(event);
    if (!card || event.target !== card) return;
    const { key } = event;
    if (key === "Enter" || key === " ") {
      event.preventDefault();
      if (held) put(true);
      else if (key === " ") lift(card.dataset.taskId ?? "");
      else hands.open(card.dataset.taskId ?? "");
    } else if (key === "Escape") {
      put(false);
    } else if (key.startsWith("Arrow")) {
      event.preventDefault();
      if (held) carry(key);
      else walk(root, card, key);
    }
  });
}

/** Go to the next card. @param {HTMLElement} root  @param {HTMLElement} card  @param {string} key */
function walk(root, card, key) {
  const lists = [...root.querySelectorAll("[data-list-id]")];
  const at = lists.findIndex((list) => list.contains(card));
  const index = [...(card.parentElement?.children ?? [])].indexOf(card);
  const list = lists[at + (key === "ArrowRight" ? 1 : key === "ArrowLeft" ? -1 : 0)];
  const cards = list?.querySelectorAll(".card") ?? [];
  const to = key === "ArrowDown" ? index + 1 : key === "ArrowUp" ? index - 1 : Math.min(index, cards.length - 1);
  const next = cards[to];
  if (next instanceof HTMLElement) next.focus();
}

/** @param {{target: EventTarget | null}} event  @returns {HTMLElement | null} */
function cardOf(event) {
  return event.target instanceof Element ? event.target.closest("[data-task-id]") : null;
}
