// @ts-check
/** The board's page: what people do becomes requests, and what happens becomes what they see. */

import { connect } from "/holdfast.js";
import { ask } from "./api.js";
import { carryCards } from "./carry.js";
import { Board, Model } from "./model.js";
import { keepSignedIn, signIn } from "./people.js";
import { askName, sheet, showCard } from "./sheets.js";
import { announce, byId, render, renderMe, renderPresence, renderStatus, renderTyping, toast } from "./view.js";

const query = new URLSearchParams(location.search);
const model = new Model();
const typing = new Map(); // who types: until when (a `user_stopped_typing` may have been missed)
/** @type {import("./model.js").Person[]} */
let people = [];
/** @type {string | null} */
let held = null; // the card in somebody's hand here
let putBack = () => {};
let frame = 0;
let boardId = query.get("board") ?? "board-1";

const client = connect("/ws", {
  jitter: query.get("jitter") !== "off",
  recover: query.get("recover") === "snapshot" ? "snapshot" : "resume",
});
/** @type {ReturnType<typeof client.join> | undefined} */
let room;

/** Show it in the next frame, once, however much happens until then. */
function draw() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    if (model.loaded) render(model.board, people, held);
  });
}

// ── what happens ─────────────────────────────────────────────────────────────────────────────────

async function snapshot() {
  const id = boardId;
  const { data: tasks, cursor } = await ask("GET", `/boards/${encodeURIComponent(id)}/tasks`); // first where it stands
  const [board, users, boards] = await Promise.all(
    [`/boards/${encodeURIComponent(id)}`, "/users", "/boards"].map((path) => ask("GET", path)),
  );
  return { data: { tasks, board: board.data, users: users.data, boards: boards.data }, cursor };
}

/** @param {string} id */
function enter(id) {
  room?.leave();
  boardId = id;
  model.loaded = false;
  const entered = (room = client.join(id, { snapshot }));
  entered.on("snapshot", ({ data }) => {
    if (room !== entered) return;
    model.truth = Board.of(data.board.lists, data.tasks);
    model.loaded = true;
    people = data.users;
    showBoards(data.boards);
    draw();
  });
  entered.on("event", (event) => {
    if (room === entered) happened(event);
  });
  entered.on("typing", (users) => {
    if (room !== entered) return;
    typing.clear();
    for (const { name } of users) typing.set(name, Date.now() + 8000);
    showTyping();
  });
  entered.on("presence", (users) => room === entered && renderPresence(users, client.user?.userId));
}

/** @param {any} event */
function happened(event) {
  switch (event.type) {
    case "board_updated":
      return void ask("GET", "/boards").then(({ data }) => showBoards(data));
    case "board_deleted":
      toast("This board was deleted.");
      room?.leave();
      return go("board-1");
  }
  const { task } = event;
  if (task?.assigneeId && !people.some((person) => person.id === task.assigneeId)) {
    ask("GET", "/users").then(({ data }) => ((people = data), draw()), () => {});
  }
  model.truth.apply(event);
  draw();
}

function showTyping() {
  for (const [name, until] of typing) if (until < Date.now()) typing.delete(name);
  renderTyping([...typing.keys()]);
}

/** @param {{id: string, name: string}[]} boards */
function showBoards(boards) {
  const select = byId("boards");
  select.replaceChildren(...boards.map(({ id, name }) => new Option(name, id, false, id === boardId)));
  const mine = boards.find(({ id }) => id === boardId);
  document.title = mine ? `${mine.name} · holdfast` : "holdfast";
}

/** Go to another board, unless that would lose something. @param {string} id */
function go(id) {
  if (client.unanswered) {
    byId("boards").value = boardId;
    return toast("Some of your changes are still on their way.");
  }
  const url = new URL(location.href);
  url.searchParams.set("board", id);
  history.pushState(null, "", url);
  enter(id);
}

client.on("status", (status) => {
  renderStatus(status, client.unanswered);
  if (status.state === "closed" && status.code === 4001) signIn("You have been signed out. Sign in to go on.");
});
client.on("error", ({ error, code }) => code !== "unauthorized" && toast(error));
client.on("connected", (user) => {
  renderMe(user);
  keepSignedIn((token) => client.authenticate(token));
});
setInterval(() => {
  renderStatus(client.status, client.unanswered);
  if (typing.size) showTyping();
}, 500);

// ── what people do ───────────────────────────────────────────────────────────────────────────────

/**
 * Show a change at once, ask for it, and take it back if it is refused.
 *
 * @param {(board: Board) => void} change  @param {string} method  @param {string} path  @param {unknown} [body]
 */
async function act(change, method, path, body) {
  const takeBack = model.begin(change);
  draw();
  try {
    return (await ask(method, path, body))?.data;
  } catch (error) {
    const { message, status } = /** @type {{message: string, status: number}} */ (error);
    toast(message);
    if (status === 401) signIn("Sign in to change the board.");
    return null;
  } finally {
    takeBack();
    draw();
  }
}

/**
 * Show a change of a card at once, and command it: it is kept while there is no link, and taken back if it is refused.
 *
 * @param {(board: Board) => void} change  @param {string} type  @param {Record<string, any>} data
 */
async function command(change, type, data) {
  const [asked, before] = [room, model.truth];
  const takeBack = model.begin(change);
  draw();
  try {
    const task = await asked?.command(type, data);
    if (asked !== room || before !== model.truth) return; // a board that was loaded meanwhile has it, or it will come
    // What the event says too, or will: else the card would jump back until it comes.
    if (type === "delete_task") change(model.truth);
    else if (model.truth.learn(task) && type === "move_task") model.truth.move(task.id, task.listId, task.position);
  } catch (error) {
    const { message, result } = /** @type {{message: string, result: string}} */ (error);
    toast(result === "rejected" ? message : result === "unknown" ? "Nobody knows whether that was done; have a look." : "That was not sent.");
  } finally {
    takeBack();
    draw();
  }
}

/** Show a card as if it stood there. @param {string} id  @param {import("./carry.js").Place} place */
function carry(id, { listId, position }) {
  putBack();
  held = id;
  putBack = model.begin((board) => board.move(id, listId, position));
  draw();
}

/** @param {string} id  @param {import("./carry.js").Place | null} place */
function drop(id, place) {
  putBack();
  held = null;
  draw();
  const task = model.board.tasks.get(id);
  if (!task || !place || (task.listId === place.listId && task.position === place.position)) return;
  const { listId, position } = place;
  command((board) => board.move(id, listId, position), "move_task", { taskId: id, listId, position });
}

carryCards(byId("lists"), {
  open: openCard,
  carry,
  drop,
  place: (id) => {
    const task = model.board.tasks.get(id);
    return task && !task.pending ? task : null;
  },
  lists: () => model.board.inOrder().map(({ id, name }) => ({ id, name, size: model.board.tasksOf(id).length })),
  say: announce,
});

byId("lists").addEventListener("submit", (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  const form = /** @type {HTMLFormElement} */ (event.target);
  const input = form.querySelector("input");
  const listId = form.closest("[data-list-id]")?.getAttribute("data-list-id");
  const title = input?.value.trim();
  if (!input || !listId || !title) return;
  input.value = "";
  const position = model.board.tasksOf(listId).length;
  const id = `new-${Date.now()}`;
  const now = new Date().toISOString();
  const task = { id, listId, title, description: null, assigneeId: null, position, createdAt: now, updatedAt: now, pending: true };
  command((board) => board.tasks.set(id, task), "create_task", { listId, title });
});

byId("lists").addEventListener("click", (/** @type {MouseEvent} */ event) => {
  const button = event.target instanceof Element ? event.target.closest("button") : null;
  const list = model.board.lists.get(button?.closest("[data-list-id]")?.getAttribute("data-list-id") ?? "");
  if (!button || !list) return;
  if (button.matches(".list-name")) nameList(list);
  const step = button.matches(".list-left") ? -1 : button.matches(".list-right") ? 1 : 0;
  if (step) act(() => {}, "PATCH", `/lists/${list.id}/move`, { position: list.position + step });
});

// Cards.

/** @param {string} id */
function openCard(id) {
  const task = model.board.tasks.get(id);
  if (!task || task.pending) return;
  const save = (/** @type {Partial<typeof task>} */ patch) =>
    command((board) => void board.tasks.set(id, { ...(board.tasks.get(id) ?? task), ...patch }), "update_task", { taskId: id, ...patch });
  showCard(task, model.board.lists.get(task.listId)?.name ?? "", people, save, () => removeCard(task));
}

/** Delete a card, unless that is undone within some seconds. @param {import("./model.js").Task} task */
function removeCard(task) {
  const change = (/** @type {Board} */ board) => board.apply({ type: "task_deleted", taskId: task.id, listId: task.listId });
  const takeBack = model.begin(change);
  draw();
  const timer = setTimeout(() => {
    removeToast();
    command(change, "delete_task", { taskId: task.id }).finally(takeBack);
  }, 4000);
  const undo = () => {
    clearTimeout(timer);
    takeBack();
    draw();
  };
  const removeToast = toast(`Deleted “${task.title.slice(0, 60)}”.`, { label: "Undo", act: undo });
}

// Lists and boards.

const addList = document.createElement("button");
addList.className = "add-list";
addList.textContent = "+ Add a list";
addList.onclick = () => askName("New list", "", (name) => act(() => {}, "POST", "/lists", { boardId, name }));
byId("lists").append(addList);

/** @param {import("./model.js").List} list */
function nameList(list) {
  const remove = () => act(() => {}, "DELETE", `/lists/${list.id}`);
  askName("List", list.name, (name) => act(() => {}, "PATCH", `/lists/${list.id}`, { name }), remove);
}

byId("boards").addEventListener("change", () => go(byId("boards").value));
byId("new-board").onclick = () =>
  askName("New board", "", async (name) => {
    const made = await act(() => {}, "POST", "/boards", { name });
    if (made) go(made.id);
  });

// People.

byId("me").onclick = () => signIn();

/** Who is in no room, for want of a WebSocket, is not seen typing. @param {string} type */
const sayTyping = (type) => client.status.road === "websocket" && room?.send(type);

let typedAt = 0;
document.addEventListener("input", (event) => {
  if (!(event.target instanceof Element) || !event.target.closest(".new-task, #card") || Date.now() - typedAt < 2000) return;
  typedAt = Date.now();
  sayTyping("typing");
});
document.addEventListener("focusout", (event) => {
  if (typedAt && event.target instanceof Element && event.target.closest(".new-task, #card")) {
    typedAt = 0;
    sayTyping("stop_typing");
  }
});

// The rest.

byId("retry-now").onclick = () => client.retryNow();
byId("theme").onclick = () => {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = localStorage.theme = dark ? "light" : "dark";
};
if (localStorage.theme) document.documentElement.dataset.theme = localStorage.theme;

document.addEventListener("keydown", (event) => {
  const busy = event.target instanceof Element && event.target.closest("input, textarea, select, dialog");
  if (busy || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "n") {
    event.preventDefault();
    const list = document.activeElement?.closest("[data-list-id]") ?? document.querySelector("[data-list-id]");
    list?.querySelector("input")?.focus();
  }
  if (event.key === "?") sheet("help", () => {});
});
window.addEventListener("beforeunload", (event) => client.unanswered && event.preventDefault());
window.addEventListener("popstate", () => enter(new URLSearchParams(location.search).get("board") ?? "board-1"));

for (let n = 0; n < 3; n++) {
  const skeleton = document.createElement("section");
  skeleton.className = "list skeleton";
  byId("lists").insertBefore(skeleton, addList);
}
enter(boardId);
Object.assign(window, { holdfast: client });
