# Copyright: SaveOS contributors. GNU General Public License v3.0 or later (see LICENSE).
"""What a verb gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from saveos_agent.errors import EXIT_FAILED, EXIT_OK


def describe_result(result: dict[str, Any]) -> str:
    archive, error = result["archive"], result["error"]
    text = f"{result['repository_id']}: {result['state']}"
    if archive:
        text += f", archive {archive['name']}, {archive['nfiles']} files, {archive['original_size']} bytes"
    return f"{text}. {error['message']} {error['fix']}" if error else text


@dataclass
class Answer:
    """What a verb gives back: data for --json, lines for people, and the exit code."""

    data: Any
    lines: list[str]
    code: int = EXIT_OK


def record_answer(record: dict[str, Any]) -> Answer:
    lines = [f"run {record['run_id']}: {record['state']}" + (" (joined)" if record.get("joined") else "")]
    lines += [
        describe_result(result) if record["kind"] == "backup" else _describe_restore(record, result)
        for result in record["results"]
    ]
    return Answer(record, lines, EXIT_OK if record["state"] in ("succeeded", "warning") else EXIT_FAILED)


def _describe_restore(record: dict[str, Any], result: dict[str, Any]) -> str:
    if result["error"]:
        return f"{result['repository_id']}: {result['error']['message']} {result['error']['fix']}"
    done = record["restore"]
    verified = {True: ", verified", False: ", not all verified", None: ""}[done.get("verified")]
    text = f"{done['files']} files, {done['bytes']} bytes in {done['destination']}"
    parts = [f"{done[name]} {name}" for name in ("overwritten", "skipped", "renamed") if done.get(name)]
    return ", ".join([text, f"{done['failed_total']} failed", *parts]) + verified


def stop_answer(result: dict[str, Any]) -> Answer:
    record = result["run"] or {}
    text = f"run {record.get('run_id')}: {record.get('state')}" if record else "no run"
    return Answer(result, [f"stopped, {text}" if result["stopped"] else f"nothing to stop, {text}"])


def plan_answer(plan: dict[str, Any]) -> Answer:
    return Answer({"plan": plan}, [f"{name}: {value}" for name, value in plan.items()])


def printable(text: str) -> str:
    """File names are any bytes: never send control characters to a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
