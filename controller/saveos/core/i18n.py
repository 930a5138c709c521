"""Languages: the catalogues, the language and zone of the current request, and localised values.

A catalogue is a .po file beside this module, read once at first use; there is no compiled file.
English is the language of the source. Language and zone live in context variables, so that one
Jinja environment serves all requests.
"""

from collections.abc import Callable
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache, lru_cache
from gettext import c2py
from pathlib import Path
from zoneinfo import ZoneInfo

from babel import Locale
from babel.dates import format_date, format_datetime, format_timedelta
from babel.messages.catalog import Catalog
from babel.messages.pofile import read_po
from babel.numbers import format_decimal, format_percent
from babel.units import format_unit

from saveos.core.clock import now

LOCALE_DIR = Path(__file__).parent / "locale"
LANGUAGES = {"en": "English", "fr": "Français"}
DEFAULT = "en"
PERIODS = {"H": "hour", "d": "day", "w": "week", "m": "month", "y": "year"}  # as Borg writes them
SIZE_UNITS = {
    "en": ("B", "KiB", "MiB", "GiB", "TiB", "PiB"),
    "fr": ("o", "Kio", "Mio", "Gio", "Tio", "Pio"),
}

_language: ContextVar[str] = ContextVar("language", default=DEFAULT)
_zone: ContextVar[tzinfo] = ContextVar("zone", default=UTC)


def use(language: str, zone: str = "") -> None:
    """Set the language and the time zone of what this request renders; unknown ones are ignored."""
    _language.set(language if language in LANGUAGES else DEFAULT)
    _zone.set(_load_zone(zone))


def language() -> str:
    """Return the current language's code."""
    return _language.get()


def negotiate(accept_language: str) -> str:
    """Return the first language of an Accept-Language header that we speak, else English."""
    weighted = []
    for part in accept_language.split(",")[:20]:
        tag, _, quality = part.strip().partition(";q=")
        try:
            weighted.append((-float(quality or 1), tag[:2].lower()))
        except ValueError:
            continue
    return next((tag for _, tag in sorted(weighted) if tag in LANGUAGES), DEFAULT)


@lru_cache(maxsize=256)
def _load_zone(name: str) -> tzinfo:
    if not name or len(name) > 64:
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # not a zone's name; ZoneInfoNotFoundError is a KeyError
        return UTC


class Translations:
    """One language's messages, by message id."""

    def __init__(self, catalog: Catalog) -> None:
        self._plural: Callable[[int], int] = c2py(catalog.plural_expr)
        self._forms: dict[str, tuple[str, ...]] = {}
        for message in catalog:
            if not message.id or message.fuzzy:
                continue
            key = message.id if isinstance(message.id, str) else message.id[0]
            forms = (message.string,) if isinstance(message.string, str) else tuple(message.string or ())
            if all(forms):
                self._forms[key] = forms

    def one(self, message: str) -> str:
        """Return the translation of a message, else the message."""
        return self._forms.get(message, (message,))[0]

    def many(self, singular: str, plural: str, number: int) -> str:
        """Return the form for a number, else the English one."""
        forms = self._forms.get(singular)
        if forms is None:
            return singular if number == 1 else plural
        return forms[min(self._plural(number), len(forms) - 1)]


@lru_cache
def _translations(code: str) -> Translations | None:
    path = LOCALE_DIR / f"{code}.po"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return Translations(read_po(file, locale=code))


def gettext(message: str) -> str:
    """Translate a message into the current language."""
    translations = _translations(language())
    return translations.one(message) if translations else message


def ngettext(singular: str, plural: str, number: int) -> str:
    """Translate a message that depends on a number."""
    translations = _translations(language())
    if translations is None:
        return singular if number == 1 else plural
    return translations.many(singular, plural, number)


def mark(message: str) -> str:
    """Return `message` as it is; marks a constant for extraction, to be translated when shown."""
    return message


def _locale() -> Locale:
    return _parse_locale(language())


@cache
def _parse_locale(code: str) -> Locale:
    # British conventions for English: day before month, 24-hour clock, as operators read times.
    return Locale.parse({"en": "en_GB", "fr": "fr_FR"}[code])


def number(value: float, digits: int = 0) -> str:
    """Return a number with the language's separators and at most `digits` decimals."""
    return format_decimal(round(value, digits), format=_with_decimals("#,##0", digits), locale=_locale())


def percent(share: float, digits: int = 0) -> str:
    """Return a share of one as a percentage."""
    pattern = _with_decimals(_locale().percent_formats[None].pattern, digits)
    return format_percent(round(share, digits + 2), format=pattern, locale=_locale())


def _with_decimals(pattern: str, digits: int) -> str:
    return pattern.replace("0", "0." + "#" * digits) if digits else pattern


def size(value: int | None) -> str:
    """Return bytes with a binary unit, three digits or so; a dash for None."""
    if value is None:
        return "–"
    amount, step, units = float(value), 0, SIZE_UNITS[language()]
    while abs(amount) >= 1023.95 and step < len(units) - 1:
        amount, step = amount / 1024, step + 1
    digits = 0 if step == 0 or amount >= 100 else 1
    return f"{number(amount, digits)}\N{NO-BREAK SPACE}{units[step]}"


def duration(seconds: float | None) -> str:
    """Return a length of time as 0.8 s, 42 s, 3 min 05 s, 2 h 10 min or 3 d 4 h; a dash for None."""
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{number(seconds, 1)}\N{NO-BREAK SPACE}s"
    total = int(seconds)
    day = "j" if language() == "fr" else "d"
    for unit, length, small, smaller in ((day, 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if total >= length:
            whole, rest = divmod(total, length)
            tail = f" {rest // smaller:02d} {small}" if rest // smaller else ""
            return f"{number(whole)} {unit}{tail}".replace(" ", "\N{NO-BREAK SPACE}")
    return f"{total}\N{NO-BREAK SPACE}s"


def period(text: str) -> str:
    """Return one of Borg's lengths of time in words, "7d" as "7 days"; what is none, as it is."""
    unit = PERIODS.get(text[-1:])
    if unit is None or not text[:-1].isdecimal():
        return text
    return format_unit(int(text[:-1]), f"duration-{unit}", locale=_locale())


def ago(value: datetime | None) -> str:
    """Return a time relative to now, as "5 hours ago" or "in 2 days"; a dash for None."""
    if value is None:
        return "–"
    difference = value - now()
    if abs(difference) < timedelta(seconds=45):
        return gettext("just now") if difference <= timedelta(0) else gettext("in a moment")
    return format_timedelta(difference, add_direction=True, format="long", threshold=1.2, locale=_locale())


def moment(value: datetime | None) -> str:
    """Return a date and time in the reader's zone; a dash for None."""
    if value is None:
        return "–"
    return format_datetime(value, "d MMM y, HH:mm", tzinfo=_zone.get(), locale=_locale())


def moment_in(value: datetime, place: str) -> str:
    """Return a day, date and time on the clock of a zone, with the zone's short name."""
    there = value.astimezone(_load_zone(place))
    shown = format_datetime(there, "EEE d MMM, HH:mm", tzinfo=there.tzinfo, locale=_locale())
    return f"{shown} {there.tzname()}"


def clock(value: datetime) -> str:
    """Return the time of day in the reader's zone."""
    return format_datetime(value, "HH:mm", tzinfo=_zone.get(), locale=_locale())


def moment_exact(value: datetime | None) -> str:
    """Return a date and time with seconds and zone, for titles."""
    if value is None:
        return ""
    return format_datetime(value, "EEEE d MMMM y, HH:mm:ss z", tzinfo=_zone.get(), locale=_locale())


def day(value: datetime) -> str:
    """Return a short date in the reader's zone."""
    return format_date(value.astimezone(_zone.get()).date(), "d MMM", locale=_locale())


def zone() -> tzinfo:
    """Return the reader's time zone."""
    return _zone.get()
