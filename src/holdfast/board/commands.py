"""
How does a page change the board, also when there is no network just now?

By messages that carry a key: the client keeps them while there is no link, in their order,
and sends them again when their answers were lost. What they do is what the routes do.
"""

from __future__ import annotations

from typing import Any

from holdfast import Hub, Invalid, NotFound, Request
from holdfast.board import changes
from holdfast.board.models import NewTask, TaskMove, TaskPatch
from holdfast.web import convert


def accept_commands(hub: Hub) -> None:
    """Let the clients of `hub` change tasks by messages."""

    @hub.on("create_task")
    async def create_task(request: Request) -> Any:
        return await hub.write(changes.create_task, convert(request.data, NewTask))

    @hub.on("update_task")
    async def update_task(request: Request) -> Any:
        return await hub.write(changes.update_task, _task_id(request), convert(request.data, TaskPatch))

    @hub.on("move_task")
    async def move_task(request: Request) -> Any:
        return await hub.write(changes.move_task, _task_id(request), convert(request.data, TaskMove))

    @hub.on("delete_task")
    async def delete_task(request: Request) -> Any:
        return await hub.write(changes.delete_task, _task_id(request))


def _task_id(request: Request) -> str:
    task_id = request.data.get("taskId")
    if not isinstance(task_id, str):
        raise Invalid("taskId: Expected `str`", field="taskId")
    if not task_id.isprintable():
        raise NotFound("there is nothing of this taskId")
    return task_id
