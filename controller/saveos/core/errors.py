"""Errors that a person or pipeline can act on; rendered once per surface as RFC 9457 problems."""

from typing import ClassVar


class Problem(Exception):
    """Base of all expected errors.

    `detail` is a sentence that says what is wrong and what to do; `field` names the offending
    input, dotted, where there is one; `type` is stable and part of the API.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, field: str | None = None, type_: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.problem_type = type_ or self.type

    def as_dict(self) -> dict[str, object]:
        """Return the problem document's members (RFC 9457), without `instance`."""
        body: dict[str, object] = {
            "type": f"urn:saveos:problem:{self.problem_type}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.field:
            body["field"] = self.field
        return body


class Invalid(Problem):
    """Input that can be read but not accepted."""

    status, type, title = 422, "invalid", "Invalid input"


class Unauthenticated(Problem):
    """No credential, or one that is unknown, expired or revoked."""

    status, type, title = 401, "unauthenticated", "Log in first"


class Forbidden(Problem):
    """The credential does not allow it."""

    status, type, title = 403, "forbidden", "Not allowed"


class NotFound(Problem):
    """Nothing there for this tenant."""

    status, type, title = 404, "not-found", "Not found"


class Conflict(Problem):
    """The state of things refuses it."""

    status, type, title = 409, "conflict", "Conflict"


class TooLarge(Problem):
    """A body over its limit."""

    status, type, title = 413, "too-large", "Too large"


class TooSlow(Problem):
    """A body that did not come in time."""

    status, type, title = 408, "too-slow", "Too slow"


class TooMany(Problem):
    """A rate limit was hit."""

    status, type, title = 429, "too-many-requests", "Too many requests"


class Unavailable(Problem):
    """A part that is needed does not answer."""

    status, type, title = 503, "unavailable", "Unavailable"
