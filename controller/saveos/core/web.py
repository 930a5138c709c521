"""FastAPI glue that all routes share: unit of work, problems, headers, limits, same-origin check."""

import asyncio
import json
import logging
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, cast
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from saveos.core import examples
from saveos.core.database import Database, new_id
from saveos.core.errors import Conflict, Forbidden, Invalid, NotFound, Problem, TooLarge, TooSlow, Unavailable
from saveos.core.feed import Feed
from saveos.core.settings import Settings

log = logging.getLogger(__name__)

MAX_BODY = 2 * 1024 * 1024
ENDLESS = "/api/v1/agents/transfers/"  # bodies below it are passed on as they come, and never held
BODY_SECONDS = 30  # for routes that read their body by `read_body`
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CSP = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "img-src 'self' data:"
)
HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass
class State:
    """What lives as long as the process serves: `app.state.saveos`."""

    settings: Settings
    database: Database
    feed: Feed
    bell: Any = None  # jobs' dispatcher: set at start, knows ring() and wait()
    intake: Any = None  # checkins' writer: set at start, knows submit()
    transfers: Any = None  # restores' meeting place: set at start


def get_state(request: Request) -> State:
    """Return the process's state."""
    return cast(State, request.app.state.saveos)


StateDep = Annotated[State, Depends(get_state)]


def unit_of_work(request: Request, state: StateDep) -> Iterator[Session]:
    """Open the request's session: one transaction, committed before the answer is sent.

    A request that may write takes SQLite's write lock at its first statement.
    """
    with state.database.session(writes=request.method not in SAFE_METHODS) as session:
        yield session


SessionDep = Annotated[Session, Depends(unit_of_work, scope="function")]


class ProblemDocument(BaseModel):
    """An error that a person or pipeline can act on (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    instance: str | None = None
    request_id: str | None = None
    field: str | None = None
    errors: list[dict[str, str]] | None = None


REF = "#/components/schemas/{model}"
PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "A problem that the caller can solve",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}},
    }
}


RAW_BODIES: list[type[BaseModel]] = []


def raw_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return `openapi_extra` of a route that reads its body itself; the reference shows the model."""
    RAW_BODIES.append(model)
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def read_body(request: Request, limit: int) -> bytes:
    """Read a body of `limit` bytes at most. Raises TooLarge, or TooSlow after BODY_SECONDS."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise TooLarge(f"the body is larger than {limit // 1024} KB: send less at once")
    except TimeoutError:
        raise TooSlow(f"the body did not come within {BODY_SECONDS} seconds: send it again") from None
    return b"".join(parts)


def unpack(body: bytes, limit: int) -> bytes:
    """Return what a gzip body holds, `limit` bytes at most. Raises TooLarge, or Invalid on what is no gzip."""
    reader = zlib.decompressobj(31)
    try:
        found = reader.decompress(body, limit)
    except zlib.error as error:
        raise Invalid("the body is no gzip: see Content-Encoding") from error
    if reader.unconsumed_tail:
        raise TooLarge(f"the body holds more than {limit // 1024 // 1024} MB: send less at once")
    if not reader.eof:
        raise Invalid("the body is cut off: send it again")
    return found


def request_id(request: Request) -> str:
    """Return the id that is also in the answer's X-Request-ID header and in the log."""
    return str(request.scope.get("saveos_request_id", ""))


def render(request: Request, problem: Problem, **extra: Any) -> Response:
    """Render a problem: as a page for people where the dashboard offers one, else as a document.

    The dashboard sets `app.state.error_page(request, problem) -> Response`.
    """
    page: Callable[[Request, Problem], Response] | None = getattr(request.app.state, "error_page", None)
    is_api = request.url.path.startswith("/api/")
    if page and not is_api and "text/html" in request.headers.get("accept", ""):
        return page(request, problem)
    body = problem.as_dict() | {"instance": request.url.path, "request_id": request_id(request)} | extra
    headers = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else None
    return JSONResponse(body, problem.status, headers, media_type="application/problem+json")


def check_same_origin(request: Request, *, required: bool = True) -> None:
    """Raise Forbidden when a browser says that another site sent this request.

    With `required` a request that says nothing is refused too: what carries a session cookie comes
    from a browser, and every browser says where from.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    own = {request.headers.get("host", ""), urlsplit(get_state(request).settings.public_url).netloc}
    if site is not None:
        allowed = site == "same-origin" or (site == "none" and not origin)
    elif origin is not None:
        allowed = urlsplit(origin).netloc in own
    else:
        allowed = not required
    if not allowed:
        raise Forbidden(
            "the request does not come from this site's own pages: reload the page, or use an API token",
            type_="cross-site",
        )


class Gate:
    """ASGI middleware: request id, security headers, body limit, and the answer to what nobody foresaw."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        identity = scope["saveos_request_id"] = new_id().hex
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = identity
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            length = _declared_length(scope)
            if length is not None and length > MAX_BODY:
                await _plain(_too_large(), scope, send_with_headers)
                return
            endless = scope["path"].startswith(ENDLESS)
            await self.app(scope, receive if endless else _limited(receive), send_with_headers)
        except Exception:
            log.exception("request %s failed: %s %s", identity, scope["method"], scope["path"])
            if started:
                raise
            problem = Problem(f"an unexpected error; look for {identity} in the controller's log")
            await _unforeseen(problem, scope, receive, send_with_headers)


def _declared_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None


def _limited(receive: Receive) -> Receive:
    total = 0

    async def limited() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > MAX_BODY:
            raise HTTPException(413)
        return message

    return limited


def _too_large() -> TooLarge:
    return TooLarge(f"the body is larger than {MAX_BODY // 1024 // 1024} MB: send less at once")


async def _unforeseen(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the problem's page or document; plainly when even its page fails."""
    try:
        answer = render(Request(scope), problem)
    except Exception:
        log.exception("the page of request %s's problem failed", scope["saveos_request_id"])
        await _plain(problem, scope, send)
        return
    await answer(scope, receive, send)


async def _plain(problem: Problem, scope: Scope, send: Send) -> None:
    """Answer from outside the application, where no request object exists."""
    body = problem.as_dict() | {"instance": scope["path"], "request_id": scope["saveos_request_id"]}
    content = json.dumps(body).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


class _Status(Problem):
    """A status of the framework itself, such as 405."""

    def __init__(self, status: int, type_: str, title: str, detail: str) -> None:
        super().__init__(detail, type_=type_)
        self.status, self.title = status, title  # type: ignore[misc]


def _from_http(request: Request, error: HTTPException) -> Problem:
    if error.status_code == 404:
        return NotFound(f"there is nothing at {request.url.path}: see /docs")
    if error.status_code == 405:
        return _Status(
            405, "method-not-allowed", "Method not allowed", f"{request.method} does not work here: see /docs"
        )
    if error.status_code == 413:
        return _too_large()
    if error.status_code == 400:
        return _Status(
            400, "malformed", "Malformed request", "the body cannot be read: send valid JSON in UTF-8"
        )
    return _Status(error.status_code, "http", "HTTP error", str(error.detail))


def _sentence(error: dict[str, Any]) -> str:
    if error.get("type") == "uuid_parsing":
        return "this is no id: give the whole of it, as lists show it"
    if error.get("type") == "json_invalid":
        return f"the body is no JSON: {(error.get('ctx') or {}).get('error', 'it cannot be read')}"
    if error.get("type") == "extra_forbidden":
        return "there is no such field: /docs names those that there are"
    message = str(error.get("msg", "")).removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _field(error: dict[str, Any]) -> str:
    parts = [str(part) for part in error.get("loc", ())]
    if error.get("type") == "json_invalid":
        return ""  # its place is a position in the text
    if parts and parts[0] in ("body", "query", "path", "header", "cookie"):
        parts = parts[1:]
    return ".".join(parts)[:200]


def install(app: FastAPI) -> None:
    """Add the gate and the error handlers to an application, and problem documents to its reference."""
    app.add_middleware(Gate)
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.setdefault("ProblemDocument", ProblemDocument.model_json_schema())
        raw = models_json_schema([(model, "validation") for model in RAW_BODIES], ref_template=REF)[1]
        schemas.update({name: schema for name, schema in raw.get("$defs", {}).items() if name not in schemas})
        examples.show(document, "/api/v1")
        return document

    app.openapi = openapi  # type: ignore[method-assign]

    @app.exception_handler(Problem)
    def _problem(request: Request, error: Problem) -> Response:
        return render(request, error)

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> Response:
        answer = render(request, _from_http(request, error))
        if error.headers:
            answer.headers.update(error.headers)
        return answer

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> Response:
        errors = [{"field": _field(each), "detail": _sentence(each)} for each in error.errors()[:20]]
        first = errors[0]
        detail = f"{first['field']}: {first['detail']}" if first["field"] else first["detail"]
        return render(request, Invalid(detail, field=first["field"]), errors=errors)

    @app.exception_handler(IntegrityError)
    def _collision(request: Request, error: IntegrityError) -> Response:
        log.warning("request %s: %s", request_id(request), error.orig)
        return render(
            request, Conflict("the same thing was changed at this moment, or is still in use: try again")
        )

    @app.exception_handler(OperationalError)
    def _database(request: Request, error: OperationalError) -> Response:
        log.error("request %s: %s", request_id(request), error.orig)
        return render(request, Unavailable("the database does not answer: try again, or look at saveos doctor"))
