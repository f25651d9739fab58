"""
Who is who: cookies, tokens, guests, and pages of somebody else.
"""

from __future__ import annotations

import asyncio
import time

import pytest
from websockets.exceptions import InvalidStatus

from peers import Peer, Server, StartBoard


async def login(server: Server, name: str = "Alice") -> str:
    response = await server.request("POST", "/login", {"name": name})
    assert response.status_code == 200
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    token: str = response.json()["data"]["token"]
    assert f"session={token}" in cookie
    return token


async def who(peer: Peer) -> str:
    name: str = (await peer.until("connected"))["user"]["name"]
    return name


async def test_sign_in_by_name_and_again_by_the_same_name(board: Server) -> None:
    first = await board.post("/login", {"name": "Dora"})
    again = await board.post("/login", {"name": "  dora "})
    assert first["data"]["user"] == again["data"]["user"]
    out = await board.request("POST", "/logout")
    assert out.status_code == 204
    assert 'session=""' in out.headers["set-cookie"]


async def test_a_token_comes_by_cookie_header_query_or_first_message(board: Server) -> None:
    token = await login(board)
    for path, headers in (
        ("/ws", {"Cookie": f"session={token}"}),
        ("/ws", {"Authorization": f"Bearer {token}"}),
        (f"/ws?token={token}", {}),
    ):
        async with await board.dial(path, additional_headers=headers) as peer:
            assert await who(peer) == "Alice"
    async with await board.dial() as peer:
        assert (await who(peer)).startswith("Guest")
        await peer.send({"type": "auth", "token": token})
        assert await who(peer) == "Alice"
    for headers in ({"cookie": f"session={token}"}, {"authorization": f"Bearer {token}"}):
        assert (await board.get("/me", **headers))["data"]["name"] == "Alice"
    assert (await board.get(f"/me?token={token}"))["data"]["name"] == "Alice"


async def test_a_guest_is_known_at_once_and_again_by_its_token(board: Server) -> None:
    async with await board.dial() as peer:
        connected = await peer.until("connected")
        assert list(connected) == ["type", "session", "user", "heartbeat", "limits", "roomKey", "token"]
        assert connected["heartbeat"] == {"interval": 30.0, "timeout": 10.0}
        assert connected["user"]["userId"].startswith("guest-")
    async with await board.dial(f"/ws?token={connected['token']}") as peer:
        again = await peer.until("connected")
        assert again["user"] == connected["user"]
        assert again["session"] != connected["session"]


@pytest.mark.parametrize("origin", [None, "https://evil.example"])
async def test_bad_credentials_are_told_in_words_then_4001(board: Server, origin: str | None) -> None:
    headers = {} if origin is None else {"Origin": origin}
    async with await board.dial("/ws?token=nonsense", additional_headers=headers) as peer:
        error = await peer.next()
        assert error["type"] == "error"
        assert error["error"].startswith("Unauthorized")
        assert await peer.closed() == 4001
    assert (await board.request("GET", "/boards", authorization="Bearer nonsense")).status_code == 401


async def test_a_bad_token_in_the_first_message_is_4001_too(board: Server) -> None:
    async with await board.dial() as peer:
        await peer.until("connected")
        await peer.send({"type": "auth", "token": "nonsense"})
        assert (await peer.until("error"))["code"] == "unauthorized"
        assert await peer.closed() == 4001


async def test_with_login_required_nothing_is_said_before_auth(start_board: StartBoard) -> None:
    server = start_board("--require-login")
    async with await server.dial() as peer:
        await peer.silence(0.5)
        await peer.send({"type": "auth", "token": await login(server)})
        assert await who(peer) == "Alice"
        await peer.join()
    async with await server.dial() as peer:
        await peer.send({"type": "join", "boardId": "board-1"})
        assert (await peer.next())["code"] == "unauthorized"
        assert await peer.closed() == 4001
    async with await server.dial() as peer:
        await peer.send({"type": "ping"})
        assert (await peer.next())["code"] == "unauthorized"
        assert await peer.closed() == 4001
    for path in ("/boards", "/boards/board-1/tasks", "/boards/board-1/events", "/boards/board-1/poll"):
        response = await server.request("GET", path)
        assert response.status_code == 401
        assert response.json()["error"].startswith("Unauthorized")
    assert (await server.request("POST", "/tasks", {"listId": "list-todo", "title": "x"})).status_code == 401
    assert (await server.request("GET", "/")).status_code == 200


async def test_nobody_stays_unknown_longer_than_the_deadline(start_board: StartBoard) -> None:
    server = start_board("--require-login")
    async with await server.dial() as peer:
        began = time.monotonic()
        assert await peer.closed(15) == 4108
        assert 9.5 < time.monotonic() - began < 11.5


async def test_a_token_that_expires_ends_the_connection_unless_it_is_renewed(start_board: StartBoard) -> None:
    server = start_board("--token-lifetime", "4")
    token = await login(server)
    async with await server.dial(f"/ws?token={token}") as left, await server.dial(f"/ws?token={token}") as renewed:
        began = time.monotonic()
        await asyncio.sleep(1)
        fresh = (await server.post("/renew", authorization=f"Bearer {token}"))["data"]["token"]
        await renewed.join()
        await renewed.send({"type": "auth", "token": fresh})
        await renewed.until("connected")
        assert await left.closed(7) == 4001
        assert 3.5 < time.monotonic() - began < 5.7
        assert left.heard[-1]["error"].startswith("Unauthorized")
        await renewed.send({"type": "ping"})
        await renewed.until("pong")
        assert await renewed.closed(7) == 4001
        assert time.monotonic() - began < 7.7
    expired = await server.request("GET", "/boards", authorization=f"Bearer {token}")
    assert (expired.status_code, "expired" in expired.json()["error"]) == (401, True)


async def test_a_restart_signs_nobody_out(start_board: StartBoard) -> None:
    server = start_board()
    token = await login(server)
    server.kill()
    server.start()
    async with await server.dial(f"/ws?token={token}") as peer:
        assert await who(peer) == "Alice"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:PORT", True),
        ("http://127.0.0.1:PORT", True),
        ("http://[::1]:PORT", True),
        ("https://app.example", True),
        ("http://localhost:1", False),
        ("http://localhost", False),
        ("https://evil.example", False),
        ("https://app.example.evil", False),
        ("https://xapp.example", False),
        ("http://app.example", False),
        ("https://app.example:444", False),
        ("https://app.example@evil.example", False),
        ("http://localhost.evil.example:PORT", False),
        ("null", False),
        ("", False),
        ("file://", False),
    ],
)
async def test_only_our_pages_and_those_named_may_speak(allowing: Server, origin: str, allowed: bool) -> None:
    sent = origin.replace("PORT", str(allowing.port))
    write = await allowing.request("POST", "/tasks", {"listId": "list-todo", "title": "x"}, origin=sent)
    assert write.status_code == (201 if allowed else 403), write.text
    for path in ("/login", "/logout"):
        assert (await allowing.request("POST", path, {"name": "Eve"}, origin=sent)).status_code == (
            (200 if path == "/login" else 204) if allowed else 403
        )
    if allowed:
        async with await allowing.dial(additional_headers={"Origin": sent}) as peer:
            await peer.join()
    else:
        with pytest.raises(InvalidStatus) as caught:
            await allowing.dial(additional_headers={"Origin": sent})
        assert caught.value.response.status_code == 403
        assert (await allowing.request("GET", "/healthz")).status_code == 200  # by now the log has it
        assert "ERROR" not in allowing.log.read_text()


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("localhost:PORT", True), ("127.0.0.1:PORT", True), ("192.168.1.5:PORT", True), ("evil.example:PORT", False)],
)
async def test_a_name_that_leads_here_does_not_make_a_page_ours(board: Server, host: str, allowed: bool) -> None:
    """DNS rebinding: the page is from evil.example, and so, says the browser, is this server."""
    host = host.replace("PORT", str(board.port))
    task = {"listId": "list-todo", "title": "x"}
    write = await board.request("POST", "/tasks", task, host=host, origin=f"http://{host}")
    assert write.status_code == (201 if allowed else 403), write.text
    if not allowed:
        assert "--origin" in write.json()["error"]


@pytest.fixture(scope="module")
def allowing(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A board that allows one other site."""
    with Server(tmp_path_factory.mktemp("allowing"), "board", "--origin", "https://app.example") as server:
        yield server
