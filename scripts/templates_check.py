#!/usr/bin/env python3
"""Check the dashboard's templates and translations; `--update` first brings the French catalogue up to date.

Faults: an hx-* attribute that this htmx does not know; inline script, style or handler (the CSP
forbids them); a message without a French translation, an unused translation, or one whose
placeholders differ or whose apostrophe is straight.
"""

import argparse
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po
from jinja2 import Environment, TemplateSyntaxError

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "templates"
PACKAGE = ROOT / "controller/saveos"
CATALOGUE = PACKAGE / "core/locale/fr.po"
KEYWORDS = {"_": None, "gettext": None, "ngettext": (1, 2), "mark": None}
HTMX = {
    "hx-get", "hx-post", "hx-put", "hx-patch", "hx-delete", "hx-trigger", "hx-target", "hx-swap", "hx-select",
    "hx-select-oob", "hx-push-url", "hx-replace-url", "hx-include", "hx-vals", "hx-headers", "hx-sync",
    "hx-indicator", "hx-disable", "hx-confirm", "hx-boost", "hx-morph-skip", "hx-morph-skip-children",
}  # fmt: skip
FORBIDDEN = {
    r"<script(?![^>]*\bsrc=)[^>]*>": "inline script",
    r"<style\b": "inline style sheet",
    r"\sstyle\s*=": "style attribute",
    r"\son[a-z]+\s*=\s*[\"']": "inline handler",
    r"javascript:": "javascript: URL",
    r"\bhx-on\b": "hx-on needs eval, which the CSP forbids",
    r"\|\s*safe\b": "unescaped value",
}
HEADER = """# French translations of SaveOS's dashboard. Kept up to date by scripts/templates_check.py --update.
msgid ""
msgstr ""
"Project-Id-Version: SaveOS\\n"
"Language: fr\\n"
"Plural-Forms: nplurals=2; plural=(n > 1);\\n"
"MIME-Version: 1.0\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"

"""
PLACEHOLDER = re.compile(r"%\(([a-z_]+)\)|\{([a-z]+)\}")
STRAIGHT = re.compile(r"(?<=[^\W\d])'(?=[^\W\d])")
BARE = re.compile(r"%(?!%|\([a-z_]+\)[sd])(?<!%%)")


def markup_faults(path: Path) -> Iterator[str]:
    """Yield what is wrong with a template's markup."""
    text = re.sub(r"{#.*?#}", lambda match: "\n" * match.group().count("\n"), path.read_text(), flags=re.S)
    name = path.relative_to(ROOT)
    try:
        Environment(extensions=["jinja2.ext.i18n"], autoescape=True).parse(text)
    except TemplateSyntaxError as error:
        yield f"{name}: {error}"
    for number, line in enumerate(text.splitlines(), 1):
        for attribute in re.findall(r"\s(hx-[a-z:-]+)", line):
            if attribute.partition(":")[0] not in HTMX:
                yield f"{name}:{number}: htmx 4 does not know {attribute}"
        for pattern, what in FORBIDDEN.items():
            if re.search(pattern, line):
                yield f"{name}:{number}: {what}"


def extract_messages() -> Catalog:
    """Return every message of templates and Python sources."""
    catalog = Catalog(locale="fr", project="SaveOS", charset="utf-8")
    sources = [(path, "jinja2.ext:babel_extract") for path in sorted(TEMPLATES.rglob("*.html"))]
    sources += [(path, "python") for path in sorted((PACKAGE / "dashboard").rglob("*.py"))]
    sources.append((PACKAGE / "core/i18n.py", "python"))
    for path, method in sources:
        options = {"silent": "false", "trimmed": "true", "newstyle_gettext": "true"}
        with path.open("rb") as file:
            for _, message, _, _ in extract(method, file, KEYWORDS, options=options):
                place = str(path.relative_to(ROOT))
                plural = isinstance(message, tuple)
                catalog.add(message if plural else str(message), locations=[(place, 0)])
    return catalog


def read_catalogue() -> Catalog:
    """Return the French catalogue, empty when there is none."""
    if not CATALOGUE.exists():
        return Catalog(locale="fr")
    with CATALOGUE.open("rb") as file:
        return read_po(file, locale="fr")


def update(found: Catalog) -> None:
    """Merge the extracted messages into the catalogue; unused translations are dropped."""
    known = read_catalogue()
    known.update(found, no_fuzzy_matching=True)
    known.obsolete.clear()
    CATALOGUE.parent.mkdir(exist_ok=True)
    text = io.BytesIO()
    write_po(text, known, width=110, sort_output=True, omit_header=True, no_location=True)
    CATALOGUE.write_bytes(HEADER.encode() + text.getvalue())


def translation_faults(found: Catalog, known: Catalog) -> Iterator[str]:
    """Yield what is missing in, unused in, or wrong with the catalogue."""
    for message in found:
        if not message.id:
            continue
        translated = known.get(message.id if isinstance(message.id, str) else message.id[0])
        if translated is None or not all(_forms(translated.string)) or translated.fuzzy:
            yield f"no French for {message.id!r}: scripts/templates_check.py --update, then translate it"
        elif _placeholders(message, plural=True) != _placeholders(translated, plural=False):
            yield f"other placeholders in the French of {message.id!r}"
        elif bare := [text for text in (*_forms(message.id), *_forms(translated.string)) if BARE.search(text)]:
            yield f"a bare %, which Jinja takes for a placeholder (write %%): {bare[0]!r}"
        elif any(STRAIGHT.search(text) for text in _forms(translated.string)):
            yield f"a straight apostrophe in the French of {message.id!r} (write ’)"
    for message in known:
        key = message.id if isinstance(message.id, str) else message.id[0]
        if message.id and found.get(key) is None:
            yield f"the French catalogue has a message that nothing uses: {message.id!r}"


def _forms(text: object) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else tuple(text or ())  # type: ignore[arg-type]


def _placeholders(message: Message, *, plural: bool) -> set[str]:
    texts = _forms(message.id if plural else message.string)
    return {one or other for text in texts for one, other in PLACEHOLDER.findall(text)}


def main() -> int:
    """Run the checks; return the exit code."""
    parser = argparse.ArgumentParser(description="Check templates and translations.")
    parser.add_argument("--update", action="store_true", help="bring the French catalogue up to date first")
    found = extract_messages()
    if parser.parse_args().update:
        update(found)
    faults = [fault for path in sorted(TEMPLATES.rglob("*.html")) for fault in markup_faults(path)]
    faults += translation_faults(found, read_catalogue())
    print("\n".join(faults) if faults else f"templates and {len(found)} messages are in order")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
