# Copyright: the SaveOS contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The YAML that people write by hand, read where Python has no YAML library. No I/O.

It reads block mappings and sequences, flow ones, quoted, plain and block scalars; every scalar is text. What it
does not know (anchors, tags, quoted texts over several lines) it says, and never guesses.
"""

from __future__ import annotations

import re

KEY = re.compile(
    r"""(?:"((?:[^"\\]|\\.)*)"|'((?:[^']|'')*)'|([^\s#\-?:,\[\]{}&*!|>'"%@`][^#]*?|-[^\s#][^#]*?))\s*:(?:\s+|$)"""
)


class YamlError(ValueError):
    """The text is no YAML; `line` counts from 1."""

    def __init__(self, line, message):
        super().__init__(f"line {line}: {message}")
        self.line = line


class Unsupported(Exception):
    """The text may be good YAML, but not of the kind that is read here."""


def load(text):
    """The first document of a text: dictionaries, lists and texts (null is None). Raises YamlError,
    Unsupported."""
    reader = _Reader(_lines(text))
    if not reader.lines:
        return None
    value = reader.block(reader.lines[0][1])
    if reader.at < len(reader.lines):
        raise YamlError(reader.lines[reader.at][0], "this line is indented less or more than those before it")
    return value


def without_comment(line):
    """A line without the comment at its end; a # within quotes or a word is none."""
    quote = ""
    for place, char in enumerate(line):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"" and (place == 0 or line[place - 1] in " \t[{,:-"):
            quote = char
        elif char == "#" and (place == 0 or line[place - 1] in " \t"):
            return line[:place]
    return line


def _lines(text):
    """(number, indentation, text) of the lines that say something; block scalars keep theirs as they are."""
    found, scalar = [], None
    for number, raw in enumerate(text.splitlines(), 1):
        if scalar is not None:
            if not raw.strip() or len(raw) - len(raw.lstrip(" ")) > scalar:
                found.append((number, -1, raw))
                continue
            scalar = None
        line = without_comment(raw).rstrip()
        if not line.strip() or line.startswith(("%", "---")):
            continue
        if line == "...":
            break
        bare = line.lstrip(" ")
        if bare.startswith("\t"):
            raise YamlError(number, "it is indented with a tab; YAML takes only blanks")
        indent = len(line) - len(bare)
        found.append((number, indent, bare))
        if re.search(r"(?:^|[:\-]\s+)[|>][+-]?\d?[+-]?$", bare):
            scalar = indent
    return found


class _Reader:
    def __init__(self, lines):
        self.lines, self.at = lines, 0

    def peek(self):
        return self.lines[self.at] if self.at < len(self.lines) else (0, -2, "")

    def block(self, indent):
        """A mapping, a sequence or a scalar whose lines are indented so far."""
        number, _, text = self.peek()
        if text == "-" or text.startswith("- "):
            return self.sequence(indent)
        if KEY.match(text):
            return self.mapping(indent)
        self.at += 1
        return self.scalar(text, number, indent)

    def sequence(self, indent):
        items = []
        while self.peek()[1] == indent and (self.peek()[2] == "-" or self.peek()[2].startswith("- ")):
            number, _, text = self.peek()
            rest = text[1:].lstrip(" ")
            if not rest:
                self.at += 1
                deeper = self.peek()[1]
                items.append(self.block(deeper) if deeper > indent else None)
                continue
            if not (rest == "-" or rest.startswith("- ") or KEY.match(rest)):
                self.at += 1
                items.append(self.scalar(rest, number, indent))
                continue
            inner = indent + len(text) - len(rest)
            self.lines[self.at] = (number, inner, rest)
            items.append(self.block(inner))
        self._no_deeper(indent)
        return items

    def mapping(self, indent):
        found = {}
        while self.peek()[1] == indent:
            number, _, text = self.peek()
            match = KEY.match(text)
            if not match:
                raise YamlError(number, "here should be a name and a colon")
            name = next(part for part in match.groups() if part is not None)
            if name == "<<":
                raise Unsupported("merge keys")
            if name in found:
                raise YamlError(number, f"the name {name!r} is there twice")
            self.at += 1
            found[name] = self.value(text[match.end() :].strip(), number, indent)
        self._no_deeper(indent)
        return found

    def value(self, rest, number, indent):
        if rest:
            return self.scalar(rest, number, indent)
        _, deeper, text = self.peek()
        if deeper > indent or (deeper == indent and (text == "-" or text.startswith("- "))):
            return self.block(deeper)
        return None

    def _no_deeper(self, indent):
        number, deeper, _ = self.peek()
        if deeper > indent:
            raise YamlError(number, "this line is indented more than those before it")

    def scalar(self, text, number, indent):
        if text[0] in "&*!":
            raise Unsupported("anchors and tags")
        if text[0] in "]},`@%":
            raise YamlError(number, f"a value cannot begin with {text[0]}")
        if re.fullmatch(r"[|>][+-]?\d?[+-]?", text):
            kept = []
            while self.peek()[1] == -1:
                kept.append(self.peek()[2].strip())
                self.at += 1
            return ("\n" if text[0] == "|" else " ").join(kept)
        if text[0] in "[{":
            return self.flow(text, number)
        if text[0] in "'\"":
            return self.quoted(text, number)
        while self.peek()[1] > indent:  # a plain text that goes on
            if KEY.match(self.peek()[2]):
                raise YamlError(self.peek()[0], "a name and a colon cannot follow a value that goes on")
            text += " " + self.peek()[2]
            self.at += 1
        if re.search(r":\s", text):
            raise YamlError(number, "a value with a colon and a blank needs quotes")
        return None if text in ("null", "~", "Null", "NULL") else text

    def quoted(self, text, number):
        match = re.fullmatch(r"\"((?:[^\"\\]|\\.)*)\"|'((?:[^']|'')*)'", text)
        if match:
            return (
                match[1].replace('\\"', '"').replace("\\\\", "\\")
                if match[1] is not None
                else match[2].replace("''", "'")
            )
        if any(text[0] in line for _, _, line in self.lines[self.at :]) and text.count(text[0]) == 1:
            raise Unsupported("a quoted text over several lines")
        raise YamlError(number, "a quote is not closed, or something follows it")

    def flow(self, text, number):
        while not _balanced(text):
            if self.at >= len(self.lines):
                raise YamlError(number, f"the bracket {text[0]} is not closed")
            text += " " + self.peek()[2]
            self.at += 1
        value, rest = _flow(text, number)
        if rest.strip():
            raise YamlError(number, "something follows a closed bracket")
        return value


def _balanced(text):
    bare = re.sub(r"(?<=[\s\[{,:])(?:\"(?:[^\"\\]|\\.)*\"|'[^']*')", "", text)
    return sum(bare.count(char) for char in "[{") <= sum(bare.count(char) for char in "]}")


def _flow(text, number):
    """(value, rest) of a flow mapping, sequence or scalar."""
    text = text.lstrip()
    if text[:1] == "[":
        items, text = [], text[1:].lstrip()
        while text[:1] != "]":
            item, text = _flow(text, number)
            items.append(item)
            text = _comma(text, "]", number)
        return items, text[1:]
    if text[:1] == "{":
        found, text = {}, text[1:].lstrip()
        while text[:1] != "}":
            match = re.match(r"""(?:"([^"]*)"|'([^']*)'|([^\s,:{}\[\]'"]+))\s*(:)?""", text)
            if not match:
                raise YamlError(number, "a name is missing within brackets")
            name, text = (
                next(part for part in match.groups()[:3] if part is not None),
                text[match.end() :].lstrip(),
            )
            found[name] = None
            if match[4] and text[:1] not in (",", "}"):
                found[name], text = _flow(text, number)
            text = _comma(text, "}", number)
        return found, text[1:]
    match = re.match(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^']|'')*)'|([^\s,\[\]{}'"&*!][^,\[\]{}]*))""", text)
    if not match:
        if text[:1] in ("&", "*", "!"):
            raise Unsupported("anchors and tags")
        raise YamlError(number, "a value is missing within brackets")
    value = next(part for part in match.groups() if part is not None).strip()
    return value, text[match.end() :]


def _comma(text, end, number):
    text = text.lstrip()
    if text[:1] == ",":
        return text[1:].lstrip()
    if text[:1] != end:
        raise YamlError(number, f"a comma or {end} is missing")
    return text
