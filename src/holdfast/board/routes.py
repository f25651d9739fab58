"""
What can be asked of the board by HTTP?

Every success is `{"data": …}`, every refusal `{"error": "…"}` with a status that says the
same. JSON is camelCase; what comes in may also be snake_case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar
from urllib.parse import unquote

import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from holdfast import Hub, Identity, Invalid, NotFound, Once, ReadTransaction, User
from holdfast.board import changes
from holdfast.board.models import (
    Board,
    BoardPatch,
    BoardWithLists,
    ListMove,
    ListPatch,
    Login,
    NewBoard,
    NewList,
    NewTask,
    Person,
    Task,
    TaskList,
    TaskMove,
    TaskPatch,
)
from holdfast.board.operations import Operation
from holdfast.web import Json, convert, decode_body, read_body

P = ParamSpec("P")
T = TypeVar("T")

COOKIE = "session"
MAX_KEY_LENGTH = 255
#: Boards whose newest snapshot is kept at hand.
SNAPSHOTS = 16


class Answer(Struct, Generic[T], frozen=True):
    """A success."""

    data: T


class Snapshot(Struct, frozen=True):
    """All tasks of a board, and the cursor at which that is true."""

    data: list[Task]
    cursor: str


class Updates(Struct, frozen=True):
    """All tasks, or those that changed; `timestamp` is what to ask `since` next time."""

    data: list[Task]
    timestamp: str


class Events(Struct, frozen=True, omit_defaults=True):
    """What followed the cursor: events, or `timeout`, or, if there is a gap, `resync` with its reason."""

    data: list[dict[str, Any]]
    cursor: str
    timestamp: str | None = None
    timeout: bool = False
    resync: dict[str, str] | None = None


class SignedIn(Struct, frozen=True):
    """Who you are now. The token is also in the cookie."""

    user: Person
    token: str
    expires: float


class Me(Struct, frozen=True, rename="camel"):
    """Who the server takes you for, and until when (seconds since 1970; null: for good)."""

    user_id: str
    name: str
    guest: bool
    expires: float | None


class Routes:
    """The handlers of every request, and the table of them."""

    def __init__(self, hub: Hub, *, token_lifetime: float) -> None:
        self._hub = hub
        self._token_lifetime = token_lifetime
        self._snapshots: dict[str, tuple[str, bytes]] = {}  # as JSON, with their cursors: a crowd asks for one

    def operations(self) -> list[Operation]:
        """Return the table."""
        events = {"cursor": "Where you stand: answer with what followed. Without it: from now on."}
        return [
            Operation("POST", "/login", "Sign in by name", self.login, Login, {200: Answer[SignedIn]}),
            Operation("POST", "/logout", "Sign out", self.logout, None, {204: None}),
            Operation("POST", "/renew", "Exchange a good token for a fresh one", self.renew, None,
                      {200: Answer[SignedIn]}),
            Operation("GET", "/me", "Who am I?", self.me, None, {200: Answer[Me]}),
            Operation("GET", "/users", "Everybody who can be given a task", self.users, None,
                      {200: Answer[list[Person]]}),
            Operation("GET", "/boards", "All boards", self.boards, None, {200: Answer[list[Board]]}),
            Operation("POST", "/boards", "Make a board", self.create_board, NewBoard,
                      {201: Answer[BoardWithLists]}, is_write=True),
            Operation("GET", "/boards/{boardId}", "A board with its lists", self.board, None,
                      {200: Answer[BoardWithLists]}),
            Operation("PATCH", "/boards/{boardId}", "Rename a board", self.update_board, BoardPatch,
                      {200: Answer[Board]}, is_write=True),
            Operation("DELETE", "/boards/{boardId}", "Delete a board", self.delete_board, None, {204: None},
                      is_write=True),
            Operation("GET", "/boards/{boardId}/tasks", "All tasks of a board, with their cursor", self.tasks,
                      None, {200: Snapshot}),
            Operation("POST", "/lists", "Make a list", self.create_list, NewList, {201: Answer[TaskList]},
                      is_write=True),
            Operation("PATCH", "/lists/{listId}", "Rename a list", self.update_list, ListPatch,
                      {200: Answer[TaskList]}, is_write=True),
            Operation("PATCH", "/lists/{listId}/move", "Move a list", self.move_list, ListMove,
                      {200: Answer[TaskList]}, is_write=True),
            Operation("DELETE", "/lists/{listId}", "Delete a list", self.delete_list, None, {204: None},
                      is_write=True),
            Operation("POST", "/tasks", "Make a task", self.create_task, NewTask, {201: Answer[Task]}, is_write=True),
            Operation("PATCH", "/tasks/{taskId}", "Change a task", self.update_task, TaskPatch,
                      {200: Answer[Task]}, is_write=True),
            Operation("PATCH", "/tasks/{taskId}/move", "Move a task", self.move_task, TaskMove,
                      {200: Answer[Task]}, is_write=True),
            Operation("DELETE", "/tasks/{taskId}", "Delete a task", self.delete_task, None, {204: None},
                      is_write=True),
            Operation("GET", "/boards/{boardId}/updates", "Short poll", self.updates, None, {200: (Updates, Events)},
                      {"since": "A timestamp: answer with the tasks changed later.", **events}),
            Operation("GET", "/boards/{boardId}/poll", "Long poll: held until something happens", self.poll, None,
                      {200: Events}, events),
            Operation("GET", "/boards/{boardId}/events", "Event stream (SSE) of a board", self.events, None,
                      {200: str}, events, media_type="text/event-stream"),
            Operation("GET", "/events", "Event stream (SSE) of several boards", self.many_events, None, {200: str},
                      {"boards": "Ids, separated by commas.", **events}, media_type="text/event-stream"),
            Operation("GET", "/admin/connections", "Who is connected, by board and road", self.connections, None,
                      {200: Answer[dict[str, Any]]}),
        ]  # fmt: skip

    # People.

    async def login(self, request: Request) -> Response:
        self._hub.check_origin(request)
        asked = await self._body(request, Login)
        person = await self._hub.write(changes.sign_in, asked.name)
        return self._signed_in(request, person)

    async def logout(self, request: Request) -> Response:
        self._hub.check_origin(request)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, httponly=True, samesite="lax")
        return response

    async def renew(self, request: Request) -> Response:
        identity = await self._hub.identify(request)
        if identity.is_guest:
            raise Invalid("guests have nothing to renew; sign in")
        return self._signed_in(request, Person(identity.user.user_id, identity.user.name, None))

    async def me(self, request: Request) -> Response:
        identity = await self._hub.identify(request)
        return Json(Answer(Me(identity.user.user_id, identity.user.name, identity.is_guest, identity.expires)))

    async def users(self, request: Request) -> Response:
        return await self._answer(request, changes.all_people)

    def _signed_in(self, request: Request, person: Person) -> Response:
        token = self._hub.token(User(person.id, person.name), self._token_lifetime)
        expires = datetime.now(UTC).timestamp() + self._token_lifetime
        response = Json(Answer(SignedIn(person, token, expires)))
        response.set_cookie(
            COOKIE, token, max_age=int(self._token_lifetime), httponly=True, samesite="lax",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return response

    # Boards.

    async def boards(self, request: Request) -> Response:
        return await self._answer(request, changes.all_boards)

    async def board(self, request: Request) -> Response:
        return await self._answer(request, changes.board_with_lists, _id(request, "boardId"))

    async def create_board(self, request: Request) -> Response:
        return await self._change(request, 201, changes.create_board, NewBoard)

    async def update_board(self, request: Request) -> Response:
        return await self._change(request, 200, changes.update_board, BoardPatch, _id(request, "boardId"))

    async def delete_board(self, request: Request) -> Response:
        return await self._change(request, 204, changes.delete_board, None, _id(request, "boardId"))

    async def tasks(self, request: Request) -> Response:
        await self._hub.identify(request)

        def query(tx: ReadTransaction, board_id: str) -> bytes:
            cursor = str(tx.position(board_id))  # first where it stands, then what it looks like there
            known = self._snapshots.get(board_id)
            if known is None or known[0] != cursor:
                known = cursor, msgspec.json.encode(Snapshot(changes.tasks_of(tx, board_id), cursor))
                if len(self._snapshots) >= SNAPSHOTS:
                    self._snapshots.clear()
                self._snapshots[board_id] = known
            return known[1]

        return Json(await self._hub.read(query, _id(request, "boardId")))

    # Lists.

    async def create_list(self, request: Request) -> Response:
        return await self._change(request, 201, changes.create_list, NewList)

    async def update_list(self, request: Request) -> Response:
        return await self._change(request, 200, changes.update_list, ListPatch, _id(request, "listId"))

    async def move_list(self, request: Request) -> Response:
        return await self._change(request, 200, changes.move_list, ListMove, _id(request, "listId"))

    async def delete_list(self, request: Request) -> Response:
        return await self._change(request, 204, changes.delete_list, None, _id(request, "listId"))

    # Tasks.

    async def create_task(self, request: Request) -> Response:
        return await self._change(request, 201, changes.create_task, NewTask)

    async def update_task(self, request: Request) -> Response:
        return await self._change(request, 200, changes.update_task, TaskPatch, _id(request, "taskId"))

    async def move_task(self, request: Request) -> Response:
        return await self._change(request, 200, changes.move_task, TaskMove, _id(request, "taskId"))

    async def delete_task(self, request: Request) -> Response:
        return await self._change(request, 204, changes.delete_task, None, _id(request, "taskId"))

    # Listening.

    async def updates(self, request: Request) -> Response:
        board_id = _id(request, "boardId")
        if "cursor" in request.query_params:
            return await self._events(request, hold=False)
        await self._hub.identify(request)
        since = _timestamp(request.query_params.get("since"))

        def query(tx: ReadTransaction) -> Updates:
            tasks = changes.tasks_of(tx, board_id)
            changed = [task for task in tasks if since is None or task.updated_at > since]
            return Updates(changed, changes.newest(tx, board_id))

        return Json(await self._hub.read(query))

    async def poll(self, request: Request) -> Response:
        return await self._events(request, hold=True)

    async def events(self, request: Request) -> Response:
        return await self._hub.events(request, [_id(request, "boardId")])

    async def many_events(self, request: Request) -> Response:
        asked = request.query_params
        boards = asked.get("boards", asked.get("rooms", "")).split(",")  # `rooms`: as our own clients call them
        return await self._hub.events(request, [unquote(board) for board in boards if board], multiplexed=True)

    async def _events(self, request: Request, *, hold: bool) -> Response:
        board_id = _id(request, "boardId")
        answer = await self._hub.poll(request, board_id, hold=hold)
        if "timeout" not in answer and "resync" not in answer:
            answer["timestamp"] = await self._hub.read(changes.seen_at, board_id, answer["cursor"])
        return Json(answer)

    async def connections(self, request: Request) -> Response:
        await self._hub.identify(request)
        boards = self._hub.listeners()
        return Json({"data": {"total": self._hub.connection_count(), "boards": boards}})

    # What the handlers share.

    async def _body(self, request: Request, type: type[T]) -> T:
        limits = self._hub.limits
        fields = decode_body(await read_body(request, limits.body_bytes, limits.request_seconds))
        return convert({_camel(name): value for name, value in fields.items()}, type)

    async def _answer(
        self, request: Request, query: Callable[Concatenate[ReadTransaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Response:
        await self._hub.identify(request)
        return Json(Answer(await self._hub.read(query, *args, **kwargs)))

    async def _change(
        self, request: Request, status: int, change: Callable[..., Any], body: type[Any] | None, *ids: str
    ) -> Response:
        """Run a change, once for each `Idempotency-Key`, and answer with what it returned."""
        identity = await self._hub.identify(request)
        args: tuple[Any, ...] = ids if body is None else (*ids, await self._body(request, body))
        once = self._once(request, identity, args)
        if once is None:
            result = await self._hub.write(change, *args)
        else:
            result = await self._hub.write_once(once, change, *args)
        return Response(status_code=204) if status == 204 else Json(Answer(result), status)

    def _once(self, request: Request, identity: Identity, args: tuple[Any, ...]) -> Once | None:
        key = request.headers.get("idempotency-key")
        if key is None:
            return None
        if not 0 < len(key) <= MAX_KEY_LENGTH or not key.isprintable():
            raise Invalid(f"Idempotency-Key is 1 to {MAX_KEY_LENGTH} printable characters", field="Idempotency-Key")
        # Whoever sends no token is a new guest each time, but it is the same client that tries again.
        user = "" if identity.is_new else identity.user.user_id
        command = msgspec.json.encode((request.method, request.url.path, args), order="deterministic")
        return Once(user, key, hashlib.sha256(command).hexdigest())


async def board_must_exist(hub: Hub, room: str) -> None:
    """Raise `NotFound` unless a room is a board."""
    if not await hub.read(changes.exists, room):
        raise NotFound(f"there is no board {room}")


def _id(request: Request, name: str) -> str:
    """Return an id from the path; raise `NotFound` for one that nothing can have."""
    id = str(request.path_params[name])
    if not id.isprintable():
        raise NotFound(f"there is nothing of this {name}")
    return id


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def _timestamp(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        # A `+` that was not percent-encoded arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+"))
        if moment.tzinfo is not None:
            moment = moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise Invalid("since: must be a timestamp in ISO 8601", field="since") from None
    return moment.isoformat(timespec="microseconds") + "Z"
