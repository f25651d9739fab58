"""
The board by HTTP: exact shapes, clear refusals, positions that stay dense.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from peers import Server, StartBoard

TASK_FIELDS = ["id", "listId", "title", "description", "assigneeId", "position", "createdAt", "updatedAt"]


async def new_board(server: Server) -> tuple[str, list[str]]:
    """Make a board of one's own; return its id and those of its lists."""
    board = (await server.post("/boards", {"name": "mine"}))["data"]
    return board["id"], [one["id"] for one in board["lists"]]


async def tasks(server: Server, board_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await server.get(f"/boards/{board_id}/tasks"))["data"]
    return found


async def test_a_fresh_database_has_people_boards_lists_and_tasks(start_board: StartBoard) -> None:
    server = start_board()
    people = (await server.get("/users"))["data"]
    assert [person["name"] for person in people] == ["Alice", "Bob", "Carol"]
    assert [board["id"] for board in (await server.get("/boards"))["data"]] == ["board-1", "board-2"]
    board = (await server.get("/boards/board-1"))["data"]
    assert [(one["id"], one["name"], one["position"]) for one in board["lists"]] == [
        ("list-todo", "To Do", 0),
        ("list-doing", "In Progress", 1),
        ("list-done", "Done", 2),
    ]
    answer = await server.get("/boards/board-1/tasks")
    assert list(answer) == ["data", "cursor"]
    assert [task["id"] for task in answer["data"]] == ["task-1", "task-2", "task-3", "task-4"]
    assert list(answer["data"][0]) == TASK_FIELDS
    server.stop()
    server.start()
    assert len(await tasks(server, "board-1")) == 4  # and it is filled once


async def test_a_task_lives_from_201_to_204(board: Server) -> None:
    board_id, (todo, _, _) = await new_board(board)
    response = await board.request("POST", "/tasks", {"list_id": todo, "title": "  Write  ", "assignee_id": "user-1"})
    assert response.status_code == 201
    task = response.json()["data"]
    assert list(task) == TASK_FIELDS
    assert (task["title"], task["assigneeId"], task["position"]) == ("Write", "user-1", 0)
    changed = (await board.patch(f"/tasks/{task['id']}", {"description": "soon"}))["data"]
    assert changed["description"] == "soon"
    assert changed["title"] == "Write"
    assert changed["updatedAt"] > task["updatedAt"]
    assert changed["createdAt"] == task["createdAt"]
    cleared = (await board.patch(f"/tasks/{task['id']}", {"description": None, "assigneeId": None}))["data"]
    assert (cleared["description"], cleared["assigneeId"]) == (None, None)
    gone = await board.request("DELETE", f"/tasks/{task['id']}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert await tasks(board, board_id) == []
    again = (await board.post("/tasks", {"listId": todo, "title": "another"}))["data"]
    assert again["id"] != task["id"]  # ids are never given twice


async def test_a_move_takes_out_then_puts_in_and_touches_who_shifts(board: Server) -> None:
    board_id, (todo, doing, _) = await new_board(board)
    a, b, c = [await board.new_task(title, todo) for title in "abc"]
    moved = (await board.patch(f"/tasks/{a['id']}/move", {"listId": todo, "position": 2}))["data"]
    assert moved["position"] == 2
    found = await tasks(board, board_id)
    assert [task["title"] for task in found] == ["b", "c", "a"]
    assert [task["position"] for task in found] == [0, 1, 2]
    assert all(new["updatedAt"] > old["updatedAt"] for new, old in zip(found, (b, c, a), strict=True))
    await board.patch(f"/tasks/{b['id']}/move", {"list_id": doing, "position": 99})
    assert [(t["title"], t["listId"], t["position"]) for t in await tasks(board, board_id)] == [
        ("c", todo, 0),
        ("a", todo, 1),
        ("b", doing, 0),
    ]


async def test_positions_stay_dense_when_many_move_at_once(board: Server) -> None:
    board_id, lists = await new_board(board)
    made = [await board.new_task(str(n), lists[n % 3]) for n in range(12)]
    await asyncio.gather(
        *(
            board.patch(f"/tasks/{task['id']}/move", {"listId": lists[(n * 7) % 3], "position": n % 4})
            for n, task in enumerate(made * 3)
        )
    )
    found = await tasks(board, board_id)
    assert len(found) == 12
    for list_id in lists:
        mine = [task["position"] for task in found if task["listId"] == list_id]
        assert mine == list(range(len(mine)))


async def test_boards_and_lists_can_be_made_renamed_moved_and_deleted(board: Server) -> None:
    board_id, (todo, doing, done) = await new_board(board)
    assert (await board.patch(f"/boards/{board_id}", {"name": "ours"}))["data"]["name"] == "ours"
    extra = (await board.post("/lists", {"boardId": board_id, "name": "Later"}))["data"]
    assert extra["position"] == 3
    await board.patch(f"/lists/{extra['id']}", {"name": "Much later"})
    await board.patch(f"/lists/{extra['id']}/move", {"position": 0})
    await board.new_task("x", doing)
    assert (await board.request("DELETE", f"/lists/{doing}")).status_code == 204
    lists = (await board.get(f"/boards/{board_id}"))["data"]["lists"]
    assert [(one["id"], one["position"]) for one in lists] == [(extra["id"], 0), (todo, 1), (done, 2)]
    assert lists[0]["name"] == "Much later"
    assert await tasks(board, board_id) == []
    assert (await board.request("DELETE", f"/boards/{board_id}")).status_code == 204
    assert (await board.request("GET", f"/boards/{board_id}")).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("POST", "/tasks", b"{", 400, "Invalid JSON"),
        ("POST", "/tasks", b"\xff\xfe", 400, "Invalid JSON"),
        ("POST", "/tasks", b"[" * 100_000, 413, "bytes"),
        ("POST", "/tasks", b"[" * 60_000, 400, "Invalid JSON"),
        ("POST", "/tasks", [], 400, "object"),
        ("POST", "/tasks", {}, 422, "listId"),
        ("POST", "/tasks", {"listId": "list-todo"}, 422, "title"),
        ("POST", "/tasks", {"listId": "list-todo", "title": 7}, 422, "title"),
        ("POST", "/tasks", {"listId": "list-todo", "title": ""}, 422, "title"),
        ("POST", "/tasks", {"listId": "list-todo", "title": "   "}, 422, "title"),
        ("POST", "/tasks", {"listId": "list-todo", "title": "x" * 501}, 422, "title"),
        ("POST", "/tasks", {"listId": "list-todo", "title": "x\0"}, 422, "title: Expected `str` of another form"),
        ("POST", "/tasks", {"listId": "list-todo", "title": "x", "description": "a\n\0"}, 422, "description"),
        ("POST", "/tasks", {"listId": "\0", "title": "x"}, 422, "listId"),
        ("POST", "/boards", {"name": "x\0"}, 422, "name"),
        ("POST", "/login", {"name": "Ann\n"}, 422, "name"),
        ("GET", "/boards/%00", None, 404, "boardId"),
        ("DELETE", "/tasks/%00", None, 404, "taskId"),
        ("POST", "/tasks", {"listId": "list-nowhere", "title": "x"}, 422, "listId"),
        ("POST", "/tasks", {"listId": "list-todo", "title": "x", "assigneeId": "user-99"}, 422, "assigneeId"),
        ("PATCH", "/tasks/task-99", {"title": "x"}, 404, "task-99"),
        ("PATCH", "/tasks/task-1", {"title": None}, 422, "title"),
        ("PATCH", "/tasks/task-1/move", {"listId": "list-todo", "position": -1}, 422, "position"),
        ("PATCH", "/tasks/task-1/move", {"listId": "list-todo", "position": "0"}, 422, "position"),
        ("PATCH", "/tasks/task-1/move", {"listId": "list-todo", "position": 0.5}, 422, "position"),
        ("PATCH", "/tasks/task-1/move", {"listId": "'; DROP TABLE tasks; --", "position": 0}, 422, "listId"),
        ("DELETE", "/tasks/task-99", None, 404, "task-99"),
        ("GET", "/boards/board-99", None, 404, "board-99"),
        ("GET", "/boards/board-99/tasks", None, 404, "board-99"),
        ("GET", "/boards/board-99/updates", None, 404, "board-99"),
        ("GET", "/boards/board-99/poll", None, 404, "board-99"),
        ("GET", "/boards/board-99/events", None, 404, "board-99"),
        ("GET", "/events?boards=board-1,board-99", None, 404, "board-99"),
        ("GET", "/events", None, 400, "rooms"),
        ("GET", "/boards/board-1/poll?cursor=nonsense", None, 400, "cursor"),
        ("GET", "/boards/board-1/updates?cursor=" + "9" * 5000, None, 400, "cursor"),
        ("GET", "/boards/board-1/updates?since=yesterday", None, 422, "since"),
        ("GET", "/boards/board-1/updates?since=0001-01-01T00:00:00%2B23:59", None, 422, "since"),
        ("GET", "/boards/board-1/updates?since=9999-12-31T23:59:59-23:59", None, 422, "since"),
        ("POST", "/login", {"name": " "}, 422, "name"),
        ("POST", "/boards", {"name": "x" * 101}, 422, "name"),
        ("GET", "/nowhere", None, 404, "/nowhere"),
        ("PUT", "/tasks", {}, 405, "PUT"),
        ("GET", "/nowhere", None, 404, "nowhere"),
        ("GET", "/send", None, 405, "GET"),
    ],
)
async def test_a_refusal_names_what_is_wrong(
    board: Server, method: str, path: str, body: Any, status: int, says: str
) -> None:
    before = await tasks(board, "board-1")
    response = await board.request(method, path, body)
    assert response.status_code == status, response.text
    answer = response.json()
    of_several = ["type", "error", "code", "boardId"]  # it says which, as a WebSocket does
    assert list(answer) == (of_several if "boards=" in path else ["error"])
    assert says in answer["error"]
    assert await tasks(board, "board-1") == before


async def test_a_snapshot_is_of_one_moment_and_its_cursor_says_which(board: Server) -> None:
    """What the snapshot has, and what follows its cursor, is everything, and nothing twice, however busy the board."""
    made = (await board.post("/boards", {"name": "busy"}))["data"]["id"]
    list_id = (await board.get(f"/boards/{made}"))["data"]["lists"][0]["id"]
    snapshots: list[Any] = []

    async def look() -> None:
        while len(snapshots) < 60:
            snapshots.append(await board.get(f"/boards/{made}/tasks"))

    async def work() -> None:
        while len(snapshots) < 60:
            await board.new_task(list_id=list_id)

    await asyncio.gather(look(), look(), *(work() for _ in range(6)))
    everything = {task["id"] for task in await tasks(board, made)}
    for snapshot in snapshots:
        seen = [task["id"] for task in snapshot["data"]]
        cursor, page = snapshot["cursor"], [None]
        while page:
            answer = await board.get(f"/boards/{made}/updates?cursor={cursor}")
            cursor, page = answer["cursor"], answer["data"]
            seen += [event["task"]["id"] for event in page]
        assert (len(seen), set(seen)) == (len(everything), everything)


async def test_a_title_is_text_whatever_it_looks_like(board: Server) -> None:
    _, (todo, _, _) = await new_board(board)
    title = "<script>alert(1)</script>'; DROP TABLE tasks; --"
    assert (await board.new_task(title, todo))["title"] == title


async def test_a_key_makes_a_retry_harmless(board: Server) -> None:
    board_id, (todo, _, _) = await new_board(board)
    command = {"listId": todo, "title": "once"}
    first = await board.request("POST", "/tasks", command, idempotency_key="k1")
    second = await board.request("POST", "/tasks", command, idempotency_key="k1")
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert len(await tasks(board, board_id)) == 1
    other = await board.request("POST", "/tasks", {**command, "title": "twice"}, idempotency_key="k1")
    assert other.status_code == 422
    task_id = first.json()["data"]["id"]
    assert [
        (await board.request("DELETE", f"/tasks/{task_id}", idempotency_key="k2")).status_code for _ in range(2)
    ] == [204, 204]
    missing = [await board.request("DELETE", "/tasks/task-999999", idempotency_key="k3") for _ in range(2)]
    assert [response.status_code for response in missing] == [404, 404]
    assert missing[0].json() == missing[1].json()


async def test_operations_can_be_asked_for(board: Server) -> None:
    assert (await board.get("/healthz"))["data"]["ok"] is True
    assert (await board.get("/readyz"))["data"]["ready"] is True
    metrics = (await board.request("GET", "/metrics")).text
    assert "# TYPE holdfast_connections gauge" in metrics
    document = await board.get("/openapi.json")
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]["/tasks/{taskId}/move"]) == {"patch"}
    assert (await board.request("GET", "/")).headers["content-security-policy"].startswith("default-src 'none'")


@pytest.mark.parametrize(
    "rest",
    [
        b"Transfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
        b"Content-Length: 100\r\n\r\n{",
    ],
)
async def test_a_body_that_is_cut_off_is_no_failure_of_the_servers(start_board: StartBoard, rest: bytes) -> None:
    board = start_board()
    with socket.create_connection(("127.0.0.1", board.port)) as sock:
        sock.sendall(b"POST /tasks HTTP/1.1\r\nHost: localhost\r\n" + rest)
        sock.shutdown(socket.SHUT_WR)
        sock.settimeout(5)
        while sock.recv(4096):
            pass
    assert (await board.request("GET", "/healthz")).status_code == 200  # by now the log has it
    assert "Traceback" not in board.log.read_text()
