// @ts-check
/**
 * What is on the board? The server's truth, and on top of it what this page has asked for and not been
 * answered yet. Applying an event twice changes nothing, so an answer and its event may come in any order.
 */

/** @typedef {{id: string, listId: string, title: string, description: string | null, assigneeId: string | null,
 *   position: number, createdAt: string, updatedAt: string, pending?: boolean}} Task */
/** @typedef {{id: string, boardId: string, name: string, position: number}} List */
/** @typedef {{id: string, name: string, email?: string | null}} Person */

export class Board {
  /** @type {Map<string, List>} */ lists = new Map();
  /** @type {Map<string, Task>} */ tasks = new Map();
  newest = ""; // the time of the newest change that has come as an event, or with the whole board

  /** @param {List[]} lists  @param {Task[]} tasks */
  static of(lists, tasks) {
    const board = new Board();
    for (const list of lists) board.lists.set(list.id, list);
    for (const task of tasks) board.#put(task);
    return board;
  }

  copy() {
    return Board.of([...this.lists.values()], [...this.tasks.values()]);
  }

  inOrder() {
    return [...this.lists.values()].sort((a, b) => a.position - b.position);
  }

  /** @param {string} listId */
  tasksOf(listId) {
    return [...this.tasks.values()].filter((task) => task.listId === listId).sort((a, b) => a.position - b.position);
  }

  /** Take in what has happened. @param {{type: string, [field: string]: any}} event */
  apply(event) {
    switch (event.type) {
      case "task_created":
      case "task_updated":
        this.#put(event.task);
        break;
      case "task_moved":
        this.#put(event.task);
        for (const ids of Object.values(event.order)) this.#number(ids);
        break;
      case "task_deleted":
        this.tasks.delete(event.taskId);
        this.#number(this.tasksOf(event.listId).map((task) => task.id));
        break;
      case "list_created":
      case "list_updated":
        this.lists.set(event.list.id, event.list);
        break;
      case "list_moved":
        this.#numberLists(event.order);
        break;
      case "list_deleted":
        this.lists.delete(event.listId);
        for (const task of this.tasksOf(event.listId)) this.tasks.delete(task.id);
        this.#numberLists(event.order);
    }
  }

  /**
   * Take in a task as it was answered; whether that is news. What is not newer than the newest event has come as one,
   * and may be past: the answer to a retry can tell of a card that is deleted by now.
   *
   * @param {Task} task
   */
  learn(task) {
    if (task.updatedAt <= this.newest) return false;
    this.tasks.set(task.id, task);
    return true;
  }

  /** @param {Task} task */
  #put(task) {
    this.tasks.set(task.id, task);
    if (task.updatedAt > this.newest) this.newest = task.updatedAt;
  }

  /** Put a task somewhere, as the server will: take it out, then put it in.
   * @param {string} id  @param {string} listId  @param {number} position */
  move(id, listId, position) {
    const task = this.tasks.get(id);
    if (!task || !this.lists.has(listId)) return;
    const left = this.tasksOf(task.listId).filter((other) => other.id !== id).map((other) => other.id);
    const order = listId === task.listId ? left : this.tasksOf(listId).map((other) => other.id);
    this.tasks.set(id, { ...task, listId });
    order.splice(position, 0, id);
    this.#number(left);
    this.#number(order);
  }

  /** @param {string[]} ids */
  #number(ids) {
    ids.forEach((id, position) => {
      const task = this.tasks.get(id);
      if (task && task.position !== position) this.tasks.set(id, { ...task, position });
    });
  }

  /** @param {string[]} ids */
  #numberLists(ids) {
    ids.forEach((id, position) => {
      const list = this.lists.get(id);
      if (list && list.position !== position) this.lists.set(id, { ...list, position });
    });
  }
}

/** The server's board, and this page's own changes that are under way. */
export class Model {
  truth = new Board();
  loaded = false;
  /** @type {Set<(board: Board) => void>} */ #underWay = new Set();

  /** What is to be seen. */
  get board() {
    if (this.#underWay.size === 0) return this.truth;
    const board = this.truth.copy();
    for (const change of this.#underWay) change(board);
    return board;
  }

  /** Show a change at once; returns what takes it back. @param {(board: Board) => void} change */
  begin(change) {
    this.#underWay.add(change);
    return () => void this.#underWay.delete(change);
  }
}
