"""
The board's tasks can be changed by messages too, which do what the routes do.
"""

from __future__ import annotations

import pytest

from peers import Server


async def test_tasks_are_made_changed_moved_and_deleted_by_messages(board: Server) -> None:
    async with await board.dial() as peer:
        await peer.join()

        async def command(type: str, **data: object) -> object:
            await peer.send({"type": type, "boardId": "board-1", "ref": 1, **data})
            reply = await peer.until("reply")
            assert reply["ok"], reply
            return reply.get("data")

        task = await command("create_task", listId="list-todo", title="by message")
        assert isinstance(task, dict)
        task_id = task["id"]
        changed = await command("update_task", taskId=task_id, title="changed")
        assert changed == {**task, "title": "changed", "updatedAt": changed["updatedAt"]}  # type: ignore[index]
        moved = await command("move_task", taskId=task_id, listId="list-done", position=0)
        assert (moved["listId"], moved["position"]) == ("list-done", 0)  # type: ignore[index]
        assert await command("delete_task", taskId=task_id) is None
        events = [message["type"] for message in peer.heard if message["type"].startswith("task_")]
        assert events == ["task_created", "task_updated", "task_moved", "task_deleted"]


@pytest.mark.parametrize(
    ("message", "code", "says"),
    [
        ({"type": "create_task", "listId": "list-todo"}, "invalid", "title"),
        ({"type": "create_task", "listId": 5, "title": "x"}, "invalid", "listId"),
        ({"type": "create_task", "listId": "nowhere", "title": "x"}, "invalid", "listId"),
        ({"type": "update_task", "title": "x"}, "invalid", "taskId"),
        ({"type": "move_task", "taskId": "task-1", "listId": "list-done", "position": -1}, "invalid", "position"),
        ({"type": "delete_task", "taskId": "task-999999"}, "not_found", "task-999999"),
        ({"type": "delete_task", "taskId": "\0"}, "not_found", "taskId"),
        ({"type": "move_task", "taskId": "a\0", "listId": "list-done", "position": 0}, "not_found", "taskId"),
    ],
)
async def test_a_refusal_names_what_is_wrong(board: Server, message: dict[str, object], code: str, says: str) -> None:
    async with await board.dial() as peer:
        await peer.join()
        await peer.send({**message, "boardId": "board-1", "ref": "r"})
        reply = await peer.until("reply")
        assert (reply["ok"], reply["error"]["code"], says in reply["error"]["error"]) == (False, code, True), reply
