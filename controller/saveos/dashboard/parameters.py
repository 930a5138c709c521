"""A form made from an operation's parameter class, and back: what was typed as parameters."""

from typing import Any

from saveos.core.errors import Invalid
from saveos.core.i18n import gettext
from saveos.dashboard import forms, words
from saveos.maintenance.operations import Operation

TRUE = "true"


def fields(operation: Operation, typed: dict[str, list[str]] | None = None) -> list[dict[str, Any]]:
    """Return the fields of an operation's form: name, label, hint, kind, choices and value.

    `kind` is flag, choice, choices, number, text, lines or yaml. `typed` is what was sent, shown again.
    """
    schema = operation.parameters.model_json_schema()
    found = []
    for name, told in schema.get("properties", {}).items():
        if name == operation.fix_parameter:
            continue  # findings have buttons of their own
        one = _resolved(told, schema.get("$defs", {}))
        kind, choices = _kind(one)
        found.append(
            {
                "name": name,
                "label": _label(name),
                "hint": _hint(name, one),
                "kind": kind,
                "choices": [(value, _choice(value)) for value in choices],
                "value": _shown(kind, typed.get(name, []) if typed is not None else one.get("default")),
                "chosen": typed.get(name, []) if typed is not None else one.get("default") or [],
            }
        )
    return found


def values(operation: Operation, typed: dict[str, list[str]]) -> dict[str, Any]:
    """Return parameters from a form; what is left empty is not said. Raises Invalid with the field."""
    said: dict[str, Any] = {}
    for field in fields(operation):
        name, kind = field["name"], field["kind"]
        sent = [each for each in typed.get(name, []) if each.strip()]
        if kind == "flag":
            said[name] = TRUE in sent
        elif kind == "choices":
            said[name] = sent
        elif kind == "lines":
            if sent:
                said[name] = forms.lines(sent[0])
        elif kind == "yaml":
            if sent:
                said[name] = forms.anything(sent[0], name)
        elif sent:
            said[name] = _number(sent[0], name) if kind == "number" else sent[0]
    return said


def _resolved(told: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """Return a property's schema without references and without the null of an optional one."""
    if "anyOf" in told:
        told = next(each for each in told["anyOf"] if each.get("type") != "null") | {
            key: value for key, value in told.items() if key != "anyOf"
        }
    if "$ref" in told:
        more = {key: value for key, value in told.items() if key != "$ref"}
        told = defs[told["$ref"].rpartition("/")[2]] | more
    if "items" in told and "$ref" in told["items"]:
        told = told | {"items": defs[told["items"]["$ref"].rpartition("/")[2]]}
    return told


def _kind(told: dict[str, Any]) -> tuple[str, list[str]]:
    if told.get("enum"):
        return "choice", list(told["enum"])
    if told.get("type") == "boolean":
        return "flag", []
    if told.get("type") in ("integer", "number"):
        return "number", []
    if told.get("type") == "array":
        item = told.get("items", {})
        if item.get("enum"):
            return "choices", list(item["enum"])
        return ("lines", []) if item.get("type") == "string" else ("yaml", [])
    return ("text", []) if told.get("type") == "string" else ("yaml", [])


def _label(name: str) -> str:
    known = words.parameters.get(name)
    return gettext(known) if known else name.replace("_", " ").capitalize()


def _hint(name: str, told: dict[str, Any]) -> str:
    known = words.hints.get(name)
    return gettext(known) if known is not None else str(told.get("description") or "")


def _choice(value: str) -> str:
    known = words.choices.get(value)
    return gettext(known) if known else value.replace("_", " ").replace("-", " ")


def _shown(kind: str, value: Any) -> str:
    """Return a value as its field shows it."""
    if isinstance(value, list) and value and kind not in ("lines", "yaml", "choices"):
        value = value[0]
    if kind == "lines":
        return "\n".join(value or [])
    if kind == "yaml":
        typed = isinstance(value, list) and value and isinstance(value[0], str)
        return str(value[0]) if typed else forms.as_yaml(value)
    if value is None or value == [] or value is False:
        return ""
    if value is True:
        return TRUE
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(text: str, field: str) -> float | int:
    try:
        return int(text) if text.strip().lstrip("-").isdigit() else float(text.replace(",", "."))
    except ValueError:
        raise Invalid(gettext("Write a number."), field=field) from None
