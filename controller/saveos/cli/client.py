"""The one door from the command to the controller: HTTP with a bearer token.

The address and token come from SAVEOS_URL and SAVEOS_TOKEN, else from the file `cli.json` that
`saveos up` and `saveos login` write. Problem documents become one sentence and an exit code.

A controller with a CA of its own is trusted by that CA alone: the one kept by `saveos login --ca-pin`, the
file in SAVEOS_CA, or on the controller's machine the one in its home. Nothing is trusted at first sight.
"""

import contextlib
import json
import os
import re
import ssl
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saveos.cli.errors import FAILED, REFUSED, UNREACHABLE, USAGE, CommandError, code_of

if TYPE_CHECKING:
    import httpx

DEFAULT_HOME = "/var/lib/saveos"
TIMEOUT = 60.0  # seconds; a page or an accepted job, never a whole job
SILENCE = 45.0  # seconds without a byte after which an event stream counts as broken
CONTENT_SILENCE = 960.0  # of content: longer than the controller waits for a host
LISTED = re.compile(r"see GET /api/v1/([a-z/]+)")
COMMANDS = {  # of routes that are not listed by the command of their own name
    "drills/rebuilds": "drills rebuilds",
    "enrolment/registrations": "enrol list",
    "enrolment/tokens": "enrol tokens list",
    "maintenance/findings": "maintenance findings",
    "maintenance/results": "maintenance results list",
    "runs": "",
}
WRITES = {  # what a sentence of the API tells to do by HTTP → the command that does it
    "add it again with POST /api/v1/hosts": "add it again with saveos hosts add",
    "resume it with PATCH /api/v1/hosts": "resume it with saveos hosts bulk resume HOST",
    "make it first with POST /api/v1/groups": "make it first with saveos groups set NAME",
    "not provisioned yet: POST /api/v1/maintenance/provision": (
        "not provisioned yet: saveos maintenance provision HOST --wait"
    ),
}


def segment(value: str) -> str:
    """Return a name or id as one segment of a path, whatever characters it has."""
    from urllib.parse import quote

    return quote(value, safe="")


@dataclass(frozen=True)
class Login:
    """Where the controller is, and the token that is shown to it; `source` says where both come from.

    `ca` is the PEM of the only CA that its certificate may come from; "" where `trust` looks for it.
    """

    url: str
    token: str
    source: str
    ca: str = ""


def login_files() -> list[Path]:
    """Return the files that may hold a login, the first that can be read counts."""
    home = Path(os.environ.get("SAVEOS_HOME") or DEFAULT_HOME)
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [home / "cli.json", config / "saveos" / "cli.json"]


def read_login() -> Login:
    """Return the login in force. Raises CommandError when there is none."""
    url, token = os.environ.get("SAVEOS_URL"), os.environ.get("SAVEOS_TOKEN")
    if url and token:
        return Login(url.rstrip("/"), token, "SAVEOS_URL and SAVEOS_TOKEN", stored_ca(url))
    login = stored_login(login_files())
    if login is None:
        raise CommandError(
            "Not logged in: run `saveos login`, or set SAVEOS_URL and SAVEOS_TOKEN "
            "(on the controller itself, run the command as root).",
            REFUSED,
        )
    return Login(url.rstrip("/"), login.token, login.source, stored_ca(url)) if url else login


def stored_login(files: list[Path]) -> Login | None:
    """Return the login in the first of `files` that is there and can be read."""
    for path in files:
        try:
            stored = json.loads(path.read_text())
            return Login(stored["url"].rstrip("/"), stored["token"], str(path), stored.get("ca", ""))
        except (FileNotFoundError, PermissionError, NotADirectoryError):
            continue
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CommandError(f"{path} is damaged: log in again with `saveos login`.", REFUSED) from error
    return None


def stored_ca(url: str) -> str:
    """Return the CA that a stored login keeps for this address, or ""."""
    try:
        login = stored_login(login_files())
    except CommandError:
        return ""
    return login.ca if login and login.url == url.rstrip("/") else ""


def trust(url: str, ca: str = "") -> ssl.SSLContext | bool:
    """Return what may vouch for the controller at `url`: `ca` alone, else SAVEOS_CA, the home's, public CAs.

    Raises CommandError when the file in SAVEOS_CA cannot be used.
    """
    if not url.startswith("https:"):
        return True
    named = os.environ.get("SAVEOS_CA", "")
    try:
        if ca:
            return ssl.create_default_context(cadata=ca)
        if named:
            return ssl.create_default_context(cafile=named)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise CommandError(
            f"The CA in {named or 'the stored login'} cannot be used: {error}.", REFUSED
        ) from error
    context = ssl.create_default_context()
    with contextlib.suppress(OSError, ssl.SSLError):
        context.load_verify_locations(
            cafile=Path(os.environ.get("SAVEOS_HOME") or DEFAULT_HOME) / "tls" / "ca.pem"
        )
    return context


def fetch_ca(url: str, pin: str) -> str:
    """Return the PEM of the controller's CA when its SHA-256 is `pin`. Raises CommandError when it is not.

    The connection that brings it is trusted by nobody: only what comes is compared.
    """
    import httpx

    from saveos.core.tls import pin_of_pem

    wanted = pin.replace(":", "").strip().lower()
    blind = ssl.create_default_context()
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    try:
        answer = httpx.get(f"{url}/api/v1/ca.pem", timeout=TIMEOUT, trust_env=False, verify=blind)
        pem = answer.raise_for_status().text
        found = pin_of_pem(pem)
    except httpx.ConnectError as error:
        raise CommandError(
            f"{url} does not answer ({error}): is the controller running there?", UNREACHABLE
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CommandError(f"{url} does not give its CA ({error}): is this the controller?", FAILED) from error
    except ValueError as error:
        raise CommandError(f"{url} gives no certificate: is this the controller?", FAILED) from error
    if found != wanted:
        raise CommandError(
            f"The CA of {url} has another pin, {found}. Compare with `saveos tls show` on the controller's "
            "machine: if the pin you have is right, something sits between you and the controller.",
            REFUSED,
        )
    return pem


def write_login(path: Path, url: str, token: str, ca: str = "") -> None:
    """Write a login file that only its owner can read; replaces an older one in one step."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"url": url, "token": token} | ({"ca": ca} if ca else {}), file)
        file.write("\n")
    partial.replace(path)


class Client:
    """A session with the controller. `instead` is the ansible-playbook line that works without it."""

    def __init__(self, login: Login | None = None, *, instead: str = "") -> None:
        import httpx

        self.login = login or read_login()
        self.instead = instead
        headers = {"User-Agent": "saveos-cli", "Accept": "application/json"}
        if self.login.token:
            headers["Authorization"] = f"Bearer {self.login.token}"
        try:
            self._http = httpx.Client(
                base_url=f"{self.login.url}/api/v1",
                headers=headers,
                timeout=TIMEOUT,
                trust_env=False,
                verify=trust(self.login.url, self.login.ca),
            )
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise CommandError(
                f"{self.login.url!r} from {self.login.source} is no address: {error}.", USAGE
            ) from error

    def get(self, path: str, /, **query: Any) -> Any:
        """GET `path` below /api/v1; query values that are None or "" are left out."""
        return self._call("GET", path, params={k: v for k, v in query.items() if v not in (None, "")})

    def get_bytes(self, path: str) -> bytes:
        """GET something that is not JSON."""
        import httpx

        try:
            response = self._http.get(path)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        self._check(response)
        return bytes(response.content)

    @contextmanager
    def content(self, path: str) -> Iterator[tuple[str, Iterator[bytes]]]:
        """GET what comes in pieces: its file name and the pieces; asks again while the host is at another run.

        Raises CommandError where it breaks off.
        """
        import httpx

        try:
            timeout = httpx.Timeout(TIMEOUT, read=CONTENT_SILENCE)
            response = self._http.send(self._http.build_request("GET", path, timeout=timeout), stream=True)
            while response.status_code == 503 and b":not-begun" in response.read():
                response.close()
                time.sleep(1)
                response = self._http.send(self._http.build_request("GET", path, timeout=timeout), stream=True)
            with contextlib.closing(response):
                self._check(response)
                disposition = response.headers.get("content-disposition", "")
                yield disposition.partition('filename="')[2].rstrip('"'), response.iter_raw(1 << 20)
        except httpx.TransportError as error:
            raise CommandError(
                f"The content broke off ({error or type(error).__name__}): what is there is not whole."
                + (" See the job of the download: saveos jobs list" if path.startswith("/restores") else ""),
                FAILED,
            ) from error

    def post(
        self, path: str, body: Any = None, *, once: bool = False, headers: dict[str, str] | None = None
    ) -> Any:
        """POST JSON. With `once` an Idempotency-Key goes along, so a repeat makes nothing new."""
        sent = dict(headers or {})
        if once:
            sent["Idempotency-Key"] = str(uuid.uuid4())
        return self._call("POST", path, json=body if body is not None else {}, headers=sent)

    def patch(self, path: str, body: Any) -> Any:
        """PATCH with JSON."""
        return self._call("PATCH", path, json=body)

    def put(self, path: str, body: Any) -> Any:
        """PUT JSON and return the answer."""
        return self._call("PUT", path, json=body)

    def delete(self, path: str) -> Any:
        """DELETE `path`."""
        return self._call("DELETE", path)

    def page(self, path: str, limit: int | None, /, **query: Any) -> dict[str, Any]:
        """Return a list's first `limit` items (None: all), fetched page by page, and the next cursor."""
        items: list[Any] = []
        cursor = query.pop("cursor", None)
        while True:
            size = 500 if limit is None else min(500, limit - len(items))
            body = self.get(path, limit=size, cursor=cursor, **query)
            items += body["items"]
            cursor = body.get("next")
            if not cursor or (limit is not None and len(items) >= limit):
                return {"items": items, "next": cursor}

    def events(self, path: str) -> Iterator[tuple[str, Any]]:
        """Yield (event, data) of a server-sent event stream until it ends; resumes after a break.

        Raises CommandError when the controller stays away for about a minute.
        """
        import httpx

        last, failures = "", 0
        while True:
            try:
                headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
                timeout = httpx.Timeout(TIMEOUT, read=SILENCE)
                with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                    self._check(response)
                    for event, data, identity in _parse_events(response.iter_lines()):
                        last, failures = identity or last, 0
                        yield event, data
                        if event == "end":
                            return
            except httpx.TransportError as error:
                if failures >= 12:
                    raise self._unreachable(error) from error
            failures += 1
            time.sleep(min(0.2 * 2**failures, 8.0))

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        import httpx

        try:
            response = self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        self._check(response)
        self.cookies = self._http.cookies
        if response.status_code == 204 or not response.content:
            return None
        return _json(response)

    def _unreachable(self, error: Exception) -> CommandError:
        reason = str(error) or type(error).__name__
        if not self.login.url.startswith(("http://", "https://")):
            return CommandError(
                f"{self.login.url!r} from {self.login.source} is no address: begin it with https://, or http://.",
                USAGE,
            )
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            return CommandError(
                f"The certificate of {self.login.url} is not trusted ({reason}). Name the pin of the "
                "controller's CA, which `saveos tls show` prints on its machine: "
                f"saveos login --url {self.login.url} --ca-pin PIN",
                REFUSED,
            )
        sentence = f"The controller at {self.login.url} does not answer ({reason}). "
        if "disconnected without sending" in reason and self.login.url.startswith("http:"):
            sentence += "Does it speak HTTPS? Then its address begins with https://. "
        sentence += "Is it running? On its machine: `saveos doctor`."
        if self.login.source == "the command line":
            sentence += " Another address: saveos login --url ADDRESS."
        if self.instead:
            sentence += f"\nWithout it, with your inventory (-i), the same is done by:\n  {self.instead}"
        return CommandError(sentence, UNREACHABLE)

    def _check(self, response: "httpx.Response") -> None:
        if response.is_success:
            return
        response.read()
        if response.is_redirect:
            raise CommandError(f"{self.login.url} is not the controller: it redirects elsewhere.", FAILED)
        problem = _problem(response)
        if problem is None:
            told = f"{response.status_code} {response.reason_phrase}"
            raise CommandError(f"{response.url} answered {told}: is this the controller?", FAILED)
        raise CommandError(_sentence(problem, self.login), code_of(response.status_code))


def _json(response: "httpx.Response") -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise CommandError(f"{response.url} did not answer with JSON: is this the controller?") from error


def _listed(found: re.Match[str]) -> str:
    """Return the command that lists what a sentence of the API says a route lists."""
    command = COMMANDS.get(found[1], f"{found[1]} list" if "/" not in found[1] else "")
    return f"see saveos {command}" if command else found[0]


def _problem(response: "httpx.Response") -> dict[str, Any] | None:
    """Return the problem document of an answer; None where it is something else."""
    try:
        problem = response.json()
    except ValueError:
        return None
    return problem if isinstance(problem, dict) and "detail" in problem else None


def _sentence(problem: dict[str, Any], login: Login) -> str:
    """Return a problem document as one sentence."""
    sentence = LISTED.sub(_listed, str(problem["detail"]).strip())
    for told, typed in WRITES.items():
        sentence = sentence.replace(told, typed)
    if problem.get("field") and not sentence.startswith(f"{problem['field']}:"):
        sentence = f"{problem['field']}: {sentence}"
    if problem.get("status") == 401 and login.token:
        sentence = (
            sentence.rstrip(".") + f". The token comes from {login.source}; `saveos login` makes a new one."
        )
    return sentence


def _parse_events(lines: Iterator[str]) -> Iterator[tuple[str, Any, str]]:
    """Yield (event, JSON data, id) of the lines of a text/event-stream."""
    event, data, identity = "message", [], ""
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                event = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                identity = value
            continue
        if data or event == "end":
            text = "\n".join(data)
            yield event, json.loads(text) if text else None, identity
        event, data = "message", []
