"""
Who is this, and may this page speak for them?

A token is a JWT, signed with the key that the store keeps, so that a restart signs
nobody out. It comes as a cookie, an `Authorization: Bearer` header, `?token=`, or in the
first message. A cookie comes by itself, also from a page of somebody else, hence the
check of the Origin.
"""

from __future__ import annotations

import ipaddress
import math
import re
import secrets
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from holdfast.errors import Unauthorized
from holdfast.protocol.codec import check_user
from holdfast.protocol.messages import User
from holdfast.web import find_cookie

COOKIE = "session"
_ALGORITHM = "HS256"
_LOOPBACK = {"localhost", "127.0.0.1", "[::1]", "::1"}
_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


@dataclass(frozen=True, slots=True)
class Identity:
    """
    A user, and until when they are known to be it (seconds since 1970; None: for good).

    A guest has not signed in; one who is new has not even been here as this guest before.
    """

    user: User
    expires: float | None = None
    is_guest: bool = False
    is_new: bool = False

    def __post_init__(self) -> None:
        if self.expires is not None and math.isnan(self.expires):
            raise ValueError("expires is a number of seconds since 1970, or None")


class Tokens:
    """Signs tokens, and reads them."""

    def __init__(self, secret: str) -> None:
        import jwt  # and with it an HTTP client, which nobody needs who only wants a name from `holdfast`

        self._jwt = jwt
        self._key = bytes.fromhex(secret)

    def sign(self, user: User, lifetime: float | None, *, is_guest: bool = False) -> str:
        """Return a token that says "this is `user`" for `lifetime` seconds, and not a whole one longer."""
        check_user(user)
        now = time.time()
        claims: dict[str, object] = {"sub": user.user_id, "name": user.name, "iat": now}
        if lifetime is not None:
            claims["exp"] = math.ceil(now + lifetime)  # whole seconds, as all who read it count
        if is_guest:
            claims["guest"] = True
        return self._jwt.encode(claims, self._key, _ALGORITHM)

    def read(self, token: str) -> Identity:
        """Return who a token says it is, or raise `Unauthorized`."""
        try:
            claims = self._jwt.decode(
                token,
                self._key,
                [_ALGORITHM],
                options={"require": ["sub", "iat"], "verify_iat": False, "verify_exp": False},
            )
            expires = None if "exp" not in claims else float(claims["exp"])
        except (self._jwt.InvalidTokenError, TypeError, ValueError, OverflowError):
            raise Unauthorized("Unauthorized: the token is not one of ours") from None
        if expires is not None and not expires > time.time():  # by the clock that it was signed by
            raise Unauthorized("Unauthorized: the token has expired; sign in again")
        try:
            user = check_user(User(claims["sub"], str(claims.get("name", claims["sub"]))))
        except ValueError as error:
            raise Unauthorized(f"Unauthorized: the token names nobody that can be: {error}") from None
        return Identity(user, expires, bool(claims.get("guest")))


def new_guest() -> Identity:
    """Return somebody who has not said who they are."""
    name = secrets.token_hex(4)
    return Identity(User(f"guest-{name}", f"Guest {name[:4]}"), None, is_guest=True, is_new=True)


def new_session() -> str:
    """Return a name for a session that nobody can guess: 128 random bits."""
    return secrets.token_urlsafe(16)


def find_token(request: HTTPConnection) -> str | None:
    """Return the token that a request carries: the most deliberate one first."""
    return find_bearer(request) or request.query_params.get("token") or find_cookie(request, COOKIE)


def find_bearer(request: HTTPConnection) -> str | None:
    """Return what a request's `Authorization: Bearer` says (RFC 6750 §2.1)."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    return credentials.strip() or None if scheme.lower() == "bearer" else None


class Origins:
    """
    The pages that may speak for their user: ours, and those that were named.

    A page is ours for certain if it came from this machine, or from the address that it speaks to. A name
    proves nothing: anybody can have one that leads here (DNS rebinding), so names have to be named.
    """

    def __init__(self, allowed: tuple[str, ...] = ()) -> None:
        self._allowed = {_parts(origin) for origin in allowed}

    def allow(self, request: HTTPConnection) -> bool:
        """Whether a request may come from where it comes from."""
        said = request.headers.getlist("origin")
        if not said:  # not from a page, or for one that cannot read the answer: a picture, a frame, a link
            is_foreign = request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
            follows_link = request.headers.get("sec-fetch-mode") == "navigate" and request.scope.get("method") == "GET"
            return not is_foreign or follows_link
        theirs = _parts(said[0]) if len(said) == 1 else None
        if theirs is None:
            return False
        if theirs in self._allowed:
            return True
        _, host, port = theirs
        ours = _parts(f"{request.url.scheme}://{request.headers.get('host', '')}")
        if ours is None:
            return False
        if port != ours[2]:
            return False
        return (host in _LOOPBACK and ours[1] in _LOOPBACK) or (host == ours[1] and _is_address(host))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


#: RFC 6454 §7: nothing but this. `urlsplit` is content with less: it passes over a tab, and reads `[::1]evil` as `::1`.
_ORIGIN = re.compile(r"[A-Za-z]+://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]+)?")


def _parts(origin: str) -> tuple[str, str, int] | None:
    """Split an origin into scheme, host and port; None: it is none (`null`, or worse)."""
    if not _ORIGIN.fullmatch(origin):
        return None
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, _PORTS[parts.scheme] if port is None else port
