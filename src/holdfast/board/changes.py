"""
What can happen to a board?

Each change is a plain function of a transaction: what it writes, and the event by which
everybody else learns of it, are committed together or not at all.
"""

from __future__ import annotations

from typing import TypeVar

from msgspec import UNSET

from holdfast import Conflict, Invalid, NotFound, ReadTransaction, Transaction
from holdfast.board.models import (
    Board,
    BoardPatch,
    BoardWithLists,
    ListMove,
    ListPatch,
    NewBoard,
    NewList,
    NewTask,
    Person,
    Task,
    TaskList,
    TaskMove,
    TaskPatch,
)

T = TypeVar("T")

MAX_BOARDS = 1_000
MAX_LISTS = 50
MAX_TASKS = 1_000
MAX_TASKS_ON_BOARD = 5_000
MAX_PEOPLE = 1_000

_TASK = "id, list_id, title, description, assignee_id, position, created_at, updated_at"

# Reading.


def all_boards(tx: ReadTransaction) -> list[Board]:
    """Return every board, oldest first."""
    return _many(Board, tx, "SELECT id, name, created_at FROM boards ORDER BY created_at, id")


def board_with_lists(tx: ReadTransaction, board_id: str) -> BoardWithLists:
    """Return a board and its lists."""
    board = _one(Board, tx, "boards", "id, name, created_at", board_id)
    return BoardWithLists(board.id, board.name, board.created_at, lists_of(tx, board_id))


def lists_of(tx: ReadTransaction, board_id: str) -> list[TaskList]:
    """Return the lists of a board, in their order."""
    return _many(
        TaskList, tx, "SELECT id, board_id, name, position FROM lists WHERE board_id = ? ORDER BY position", board_id
    )


def tasks_of(tx: ReadTransaction, board_id: str) -> list[Task]:
    """Return the tasks of a board, by list and position."""
    _one(Board, tx, "boards", "id, name, created_at", board_id)
    return _many(
        Task,
        tx,
        f"SELECT {_TASK} FROM tasks "
        "JOIN (SELECT id AS list, position AS place FROM lists WHERE board_id = ?) AS places ON list_id = list "
        "ORDER BY place, position",
        board_id,
    )


def all_people(tx: ReadTransaction) -> list[Person]:
    """Return everybody who has ever signed in."""
    return _many(Person, tx, "SELECT id, name, email FROM users ORDER BY name")


def exists(tx: ReadTransaction, board_id: str) -> bool:
    """Whether there is such a board."""
    return tx.one("SELECT 1 FROM boards WHERE id = ?", (board_id,)) is not None


def newest(tx: ReadTransaction, board_id: str) -> str:
    """Return the time of the newest change of a board."""
    return seen_at(tx, board_id, str(tx.position(board_id)))


def seen_at(tx: ReadTransaction, board_id: str, cursor: str) -> str:
    """Return a time before which a reader who stands at `cursor` has seen every change of the board, none later."""
    _, _, offset = cursor.partition(":")
    if offset == "0":
        return _one(Board, tx, "boards", "id, name, created_at", board_id).created_at
    return tx.time(board_id, int(offset)) or "1970-01-01T00:00:00.000000Z"


# People.


def sign_in(tx: Transaction, name: str) -> Person:
    """Return the person of this name, who is made if there was none."""
    name = " ".join(name.split())
    found = _many(Person, tx, "SELECT id, name, email FROM users WHERE name = ?", name)
    if found:
        return found[0]
    _check_room_for("people", MAX_PEOPLE, tx, "SELECT count(*) AS n FROM users")
    person = Person(tx.new_id("user"), name, None)
    tx.execute("INSERT INTO users (id, name, email) VALUES (?, ?, NULL)", (person.id, person.name))
    return person


# Boards and lists.


def create_board(tx: Transaction, new: NewBoard) -> BoardWithLists:
    """Make a board with the usual three lists."""
    _check_room_for("boards", MAX_BOARDS, tx, "SELECT count(*) AS n FROM boards")
    board = Board(tx.new_id("board"), new.name.strip(), tx.now)
    tx.execute("INSERT INTO boards (id, name, created_at) VALUES (?, ?, ?)", (board.id, board.name, board.created_at))
    for position, name in enumerate(("To Do", "In Progress", "Done")):
        _insert_list(tx, TaskList(tx.new_id("list"), board.id, name, position))
    return board_with_lists(tx, board.id)


def update_board(tx: Transaction, board_id: str, patch: BoardPatch) -> Board:
    """Rename a board."""
    _one(Board, tx, "boards", "id, name, created_at", board_id)
    tx.execute("UPDATE boards SET name = ? WHERE id = ?", (patch.name.strip(), board_id))
    board = _one(Board, tx, "boards", "id, name, created_at", board_id)
    tx.publish(board_id, "board_updated", {"board": board})
    return board


def delete_board(tx: Transaction, board_id: str) -> None:
    """Delete a board with all that is on it."""
    _one(Board, tx, "boards", "id, name, created_at", board_id)
    tx.execute("DELETE FROM tasks WHERE list_id IN (SELECT id FROM lists WHERE board_id = ?)", (board_id,))
    tx.execute("DELETE FROM lists WHERE board_id = ?", (board_id,))
    tx.execute("DELETE FROM boards WHERE id = ?", (board_id,))
    tx.publish(board_id, "board_deleted", {})


def create_list(tx: Transaction, new: NewList) -> TaskList:
    """Make a list at the end of its board."""
    if not exists(tx, new.board_id):
        raise Invalid(f"boardId: there is no board {new.board_id}", field="boardId")
    count = _check_room_for("lists on a board", MAX_LISTS, tx, "SELECT count(*) AS n FROM lists WHERE board_id = ?",
                            new.board_id)  # fmt: skip
    created = TaskList(tx.new_id("list"), new.board_id, new.name.strip(), count)
    _insert_list(tx, created)
    tx.publish(new.board_id, "list_created", {"list": created})
    return created


def update_list(tx: Transaction, list_id: str, patch: ListPatch) -> TaskList:
    """Rename a list."""
    _list(tx, list_id)
    tx.execute("UPDATE lists SET name = ? WHERE id = ?", (patch.name.strip(), list_id))
    updated = _list(tx, list_id)
    tx.publish(updated.board_id, "list_updated", {"list": updated})
    return updated


def move_list(tx: Transaction, list_id: str, move: ListMove) -> TaskList:
    """Put a list somewhere else on its board."""
    board_id = _list(tx, list_id).board_id
    order = [other.id for other in lists_of(tx, board_id) if other.id != list_id]
    order.insert(move.position, list_id)
    _number_lists(tx, order)
    moved = _list(tx, list_id)
    tx.publish(board_id, "list_moved", {"list": moved, "order": order})
    return moved


def delete_list(tx: Transaction, list_id: str) -> None:
    """Delete a list with its tasks."""
    board_id = _list(tx, list_id).board_id
    tx.execute("DELETE FROM tasks WHERE list_id = ?", (list_id,))
    tx.execute("DELETE FROM lists WHERE id = ?", (list_id,))
    order = [other.id for other in lists_of(tx, board_id)]
    _number_lists(tx, order)
    tx.publish(board_id, "list_deleted", {"listId": list_id, "order": order})


# Tasks.


def create_task(tx: Transaction, new: NewTask) -> Task:
    """Make a task at the end of its list."""
    home = _known_list(tx, new.list_id)
    _check_assignee(tx, new.assignee_id)
    on_board = "SELECT count(*) AS n FROM tasks WHERE list_id IN (SELECT id FROM lists WHERE board_id = ?)"
    _check_room_for("tasks on a board", MAX_TASKS_ON_BOARD, tx, on_board, home.board_id)
    position = _check_room_for("tasks in a list", MAX_TASKS, tx, "SELECT count(*) AS n FROM tasks WHERE list_id = ?",
                               home.id)  # fmt: skip
    task = Task(
        tx.new_id("task"), home.id, new.title.strip(), new.description, new.assignee_id, position, tx.now, tx.now
    )
    tx.execute(
        f"INSERT INTO tasks ({_TASK}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (task.id, task.list_id, task.title, task.description, task.assignee_id, position, tx.now, tx.now),
    )
    tx.publish(home.board_id, "task_created", {"task": task})
    return task


def update_task(tx: Transaction, task_id: str, patch: TaskPatch) -> Task:
    """Change the fields of a task that are given."""
    task = _task(tx, task_id)
    if patch.assignee_id is not UNSET:
        _check_assignee(tx, patch.assignee_id)
    tx.execute(
        "UPDATE tasks SET title = ?, description = ?, assignee_id = ?, updated_at = ? WHERE id = ?",
        (
            task.title if patch.title is UNSET else patch.title.strip(),
            task.description if patch.description is UNSET else patch.description,
            task.assignee_id if patch.assignee_id is UNSET else patch.assignee_id,
            tx.now,
            task_id,
        ),
    )
    updated = _task(tx, task_id)
    tx.publish(_list(tx, updated.list_id).board_id, "task_updated", {"task": updated})
    return updated


def move_task(tx: Transaction, task_id: str, move: TaskMove) -> Task:
    """Take a task out of its list, and put it into one of the same board at a position."""
    task = _task(tx, task_id)
    source, target = _list(tx, task.list_id), _known_list(tx, move.list_id)
    if source.board_id != target.board_id:
        raise Conflict("listId: a task stays on its board", field="listId")
    if source.id != target.id:
        _check_room_for("tasks in a list", MAX_TASKS, tx, "SELECT count(*) AS n FROM tasks WHERE list_id = ?",
                        target.id)  # fmt: skip
    tx.execute("UPDATE tasks SET list_id = ?, updated_at = ? WHERE id = ?", (target.id, tx.now, task_id))
    left = [other for other in _order(tx, source.id) if other != task_id]
    order = left if source.id == target.id else [other for other in _order(tx, target.id) if other != task_id]
    order.insert(move.position, task_id)
    orders = {source.id: left, target.id: order}
    for ids in orders.values():
        _number_tasks(tx, ids)
    moved = _task(tx, task_id)
    tx.publish(target.board_id, "task_moved", {"task": moved, "order": orders})
    return moved


def delete_task(tx: Transaction, task_id: str) -> None:
    """Delete a task."""
    task = _task(tx, task_id)
    tx.execute("DELETE FROM tasks WHERE id = ?", (task_id,))
    _number_tasks(tx, _order(tx, task.list_id))
    tx.publish(_list(tx, task.list_id).board_id, "task_deleted", {"taskId": task_id, "listId": task.list_id})


# The first day.


def is_fresh(tx: ReadTransaction) -> bool:
    """Whether a database was never used (a query)."""
    return tx.one("SELECT 1 FROM users") is None


def seed(tx: Transaction) -> None:
    """Fill a fresh database, so that there is something to see. Does nothing to one that was ever used."""
    if not is_fresh(tx):
        return
    people = [sign_in(tx, name) for name in ("Alice", "Bob", "Carol")]
    for person in people:
        tx.execute("UPDATE users SET email = ? WHERE id = ?", (f"{person.name.lower()}@example.org", person.id))
    for board_id, name in (("board-1", "Launch"), ("board-2", "Ideas")):
        tx.new_id(
            "board"
        )  # a later board has another: PostgreSQL does not give a number twice, to whoever begins again
        tx.execute("INSERT INTO boards (id, name, created_at) VALUES (?, ?, ?)", (board_id, name, tx.now))
    first = ("list-todo", "list-doing", "list-done")
    second = (tx.new_id("list"), tx.new_id("list"), tx.new_id("list"))
    for board_id, ids in (("board-1", first), ("board-2", second)):
        for position, (list_id, name) in enumerate(zip(ids, ("To Do", "In Progress", "Done"), strict=True)):
            _insert_list(tx, TaskList(list_id, board_id, name, position))
    for list_id, title, description, assignee in (
        ("list-todo", "Pull the plug", "Close the lid, or stop the server. Then come back.", people[0].id),
        ("list-todo", "Open this board in a second window", None, None),
        ("list-doing", "Write the announcement", "What it does, and what it does not.", people[1].id),
        ("list-done", "Choose a name", None, people[2].id),
    ):
        create_task(tx, NewTask(list_id, title, description, assignee))


# What the changes share.


def _many(kind: type[T], tx: ReadTransaction, sql: str, *parameters: object) -> list[T]:
    return [_struct(kind, row) for row in tx.all(sql, parameters)]


def _struct(kind: type[T], row: dict[str, object]) -> T:
    return kind(**row)


def _one(kind: type[T], tx: ReadTransaction, table: str, columns: str, id: str) -> T:
    row = tx.one(f"SELECT {columns} FROM {table} WHERE id = ?", (id,))
    if row is None:
        raise NotFound(f"there is no {table[:-1]} {id[:128]}")
    return _struct(kind, row)


def _task(tx: ReadTransaction, task_id: str) -> Task:
    return _one(Task, tx, "tasks", _TASK, task_id)


def _list(tx: ReadTransaction, list_id: str) -> TaskList:
    return _one(TaskList, tx, "lists", "id, board_id, name, position", list_id)


def _known_list(tx: ReadTransaction, list_id: str) -> TaskList:
    try:
        return _list(tx, list_id)
    except NotFound as error:
        raise Invalid(f"listId: {error.message}", field="listId") from None


def _check_assignee(tx: ReadTransaction, assignee_id: str | None) -> None:
    if assignee_id is not None and tx.one("SELECT 1 FROM users WHERE id = ?", (assignee_id,)) is None:
        raise Invalid(f"assigneeId: there is no user {assignee_id}", field="assigneeId")


def _check_room_for(what: str, limit: int, tx: ReadTransaction, sql: str, *parameters: object) -> int:
    row = tx.one(sql, parameters)
    assert row is not None
    count: int = row["n"]
    if count >= limit:
        raise Conflict(f"there can be at most {limit} {what}")
    return count


def _insert_list(tx: Transaction, new: TaskList) -> None:
    tx.execute(
        "INSERT INTO lists (id, board_id, name, position) VALUES (?, ?, ?, ?)",
        (new.id, new.board_id, new.name, new.position),
    )


def _order(tx: ReadTransaction, list_id: str) -> list[str]:
    return [row["id"] for row in tx.all("SELECT id FROM tasks WHERE list_id = ? ORDER BY position, id", (list_id,))]


def _number_tasks(tx: Transaction, ids: list[str]) -> None:
    """Make positions dense; a sibling that shifts was changed."""
    for position, task_id in enumerate(ids):
        tx.execute(
            "UPDATE tasks SET position = ?, updated_at = ? WHERE id = ? AND position <> ?",
            (position, tx.now, task_id, position),
        )


def _number_lists(tx: Transaction, ids: list[str]) -> None:
    for position, list_id in enumerate(ids):
        tx.execute("UPDATE lists SET position = ? WHERE id = ?", (position, list_id))
