"""Which Apprise URLs a channel may have, and what may be shown of one. Imports little: the sender uses it."""

import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from saveos.core.errors import Invalid

# Of Apprise's many: those that only make network connections. The second set names a secret as host.
WITH_HOST = frozenset(
    {"json", "jsons", "form", "forms", "xml", "xmls", "mailto", "mailtos", "ntfy", "ntfys"}
    | {"gotify", "gotifys", "mmost", "mmosts", "rocket", "rockets"}
)
SCHEMES = WITH_HOST | frozenset(
    {"discord", "gchat", "matrix", "matrixs", "opsgenie", "pagerduty", "pover", "slack", "tgram"}
    | {"workflows", "zulip"}
)
# They make Apprise read a file, follow another address, or fetch keys
FORBIDDEN_OPTIONS = frozenset(
    {"attach", "attach-as", "redirect", "pgp", "pgppub", "pgpkey", "pgpprv", "wkd", "keyfile", "store"}
    | {"template"}
)


def judge_url(url: str) -> str:
    """Return a channel's URL in Apprise's words: http(s):// means a webhook that takes JSON.

    Raises Invalid, never repeating the URL, since it may hold a password.
    """
    parts = _parse(url)
    scheme = parts.scheme
    if scheme in ("http", "https"):
        # Apprise passes parameters on when they begin with a dash; + is a header, : a member of the JSON
        words = filter(None, parts.query.split("&"))
        query = "&".join(word if word[0] in "+-:" else f"-{word}" for word in words)
        scheme = "jsons" if scheme == "https" else "json"
        parts = parts._replace(scheme=scheme, query=query)
    if scheme not in SCHEMES:
        known = ", ".join(sorted(SCHEMES))
        raise Invalid(f"{scheme[:20]!r} is no kind of channel: use https, or one of {known}", field="url")
    options = {key.lower() for key, _ in parse_qsl(parts.query, keep_blank_values=True)}
    if bad := sorted(options & FORBIDDEN_OPTIONS):
        raise Invalid(f"the option {bad[0]} is not allowed in a channel's URL: leave it out", field="url")
    return urlunsplit(parts)


def _parse(url: str) -> SplitResult:
    fault = Invalid(
        "the URL cannot be read: it looks like https://host/path or ntfys://host/topic", field="url"
    )
    if any(not each.isprintable() or each.isspace() for each in url):
        raise fault
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise fault from None
    if not parts.netloc:
        raise fault
    return parts


def shown(url: str) -> str:
    """Return what may be shown of a judged URL: scheme, and the host where that is no secret."""
    parts = urlsplit(url)
    is_topic = parts.scheme in ("ntfy", "ntfys") and not parts.path.strip(
        "/"
    )  # ntfy.sh's; who knows it may read
    host = "…" if is_topic or parts.scheme not in WITH_HOST else parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}"[:300]


def redact(text: str, url: str) -> str:
    """Return `text` without the parts of `url` that may be secret: all but scheme, host and port."""
    parts = urlsplit(url)
    public = {parts.scheme, parts.hostname or ""} if parts.scheme in WITH_HOST else {parts.scheme}
    text = re.sub(r"\S+://\S+", "…", text)  # Apprise's own masking leaves first and last letters
    words = {word for piece in (url, unquote(url)) for word in re.split(r"[/:@?&=,\s]+", piece)}
    for word in sorted(words - public, key=len, reverse=True):
        if len(word) >= 4:
            text = text.replace(word, "…")
    return text
