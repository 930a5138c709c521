"""`saveos maintenance health`: how controller and hosts are, once or as a live view of the terminal.

The view is plain ANSI: it draws over itself every few seconds, q or Ctrl-C ends it, and it leaves the
terminal as it was. What came from hosts is shown with control characters made visible.
"""

import contextlib
import json
import os
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from saveos.cli import output
from saveos.cli.client import Client
from saveos.cli.common import examples
from saveos.cli.errors import FINDINGS, CommandError

MARKS = {"ok": "●", "warning": "▲", "critical": "✖"}
COLOURS = {"ok": "32", "warning": "33", "critical": "31", "dim": "2", "bold": "1"}
# a host's protection, worst first
WORST = {"failing": 0, "silent": 1, "late": 2, "never": 3, "none": 4, "protected": 5}
ENTER, LEAVE, HOME, CLEAR = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l", "\x1b[H", "\x1b[J"

Interval = Annotated[float, typer.Option("--interval", min=1, max=3600, help="Seconds between looks.")]
Once = Annotated[
    bool, typer.Option("--once", help="Show it once and end; with 3 when something needs a person.")
]


def add_to(health: typer.Typer, check_all: Callable[[], None]) -> None:
    """Mount these commands below `saveos maintenance health`; `check_all` asks every host how it is."""
    health.info.no_args_is_help = False

    @health.callback(invoke_without_command=True)
    def overview(
        context: typer.Context,
        check: Annotated[
            bool, typer.Option("--check", help="Ask every host first: health check --all.")
        ] = False,
    ) -> None:
        """Is each host well, and is the controller? Without a command: what is known now, as monitor --once."""
        if context.invoked_subcommand:
            return
        if check:
            check_all()
        else:
            monitor(once=True)

    health.command(
        "monitor",
        epilog=examples("saveos maintenance health monitor", "saveos --json maintenance health monitor --once"),
    )(monitor)
    health.command("system", epilog=examples("saveos maintenance health system"))(show_system)


def show_system() -> None:
    """How the controller itself is: database, queue, workers, certificates, disk, own backup.

    Ends with 3 when something of it needs a person.
    """
    found = Client().get("/system/health")
    if output.is_json():
        output.emit(found)
    else:
        for line in _system_lines(found, plain=True):
            print(line)
    raise typer.Exit(_code(found["status"]))


def monitor(interval: Interval = 5.0, once: Once = False) -> None:
    """Watch controller, hosts, jobs and alerts live; q ends it.

    Without a terminal, or with --json, a look is written every --interval seconds; with --json one a line.
    """
    client = Client()
    if once:
        seen = look(client)
        if output.is_json():
            output.emit(seen)
        else:
            print("\n".join(frame(seen, *_size(), plain=not sys.stdout.isatty())))
        raise typer.Exit(_code(seen["state"]))
    if output.is_json() or not (sys.stdin.isatty() and sys.stdout.isatty()):
        _stream(client, interval)
    else:
        _live(client, interval)


def _code(state: str) -> int:
    return 0 if state == "ok" else FINDINGS


def look(client: Client) -> dict[str, Any]:
    """Return everything that the view shows, with the worst state of it."""
    seen = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "system": client.get("/system/health"),
        "hosts": client.page("/hosts", None)["items"],
        "jobs": client.page("/jobs", 50, state="running")["items"],
        "alerts": client.page("/alerts", 50, state="open")["items"],
    }
    states = {seen["system"]["status"], *(each["severity"] for each in seen["alerts"])}
    seen["state"] = next((each for each in ("critical", "warning") if each in states), "ok")
    seen["hosts"] = [_host(each) for each in sorted(seen["hosts"], key=_rank)]
    return seen


def _rank(host: dict[str, Any]) -> tuple[int, str]:
    return WORST.get(host["protection"], 4), host["name"]


def _host(host: dict[str, Any]) -> dict[str, Any]:
    """Return what the view shows of a host."""
    health = (host.get("facts") or {}).get("health") or {}
    summary = health.get("summary") or {}
    return {
        "name": host["name"],
        "protection": host["protection"],
        "state": health.get("state"),
        "last_backup_at": host["last_backup_at"],
        "seen_at": host["seen_at"],
        "disk_free_percent": round(100 * host["disk_free_share"])
        if host["disk_free_share"] is not None
        else None,
        "load_per_cpu": summary.get("load_per_cpu"),
        "memory_available_bytes": health.get("memory_available_bytes"),
        "agent": (host.get("versions") or {}).get("agent"),
        "borg": (host.get("versions") or {}).get("borg"),
    }


# ---- drawing ------------------------------------------------------------------------------------------------


def _paint(text: str, colour: str, plain: bool) -> str:
    return text if plain else f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def _mark(state: str | None, plain: bool) -> str:
    name = state if state in MARKS else "ok"
    return _paint(MARKS[name] if state in MARKS else "·", name if state in MARKS else "dim", plain)


def _ago(moment: str | None) -> str:
    if not moment:
        return "never"
    return output.duration(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()))


def _system_lines(found: dict[str, Any], *, plain: bool) -> Iterator[str]:
    queue, disk, backup = found["queue"], found["disk"], found["own_backup"]
    yield f"{_mark(found['status'], plain)} controller {found['version']}: {found['status']}"
    size = f", {output.size(found['database']['bytes'])}" if found["database"]["bytes"] else ""
    yield f"  database    {found['database']['kind']}, {found['database']['milliseconds']} ms{size}"
    oldest = f", the oldest for {output.duration(queue['oldest_seconds'])}" if queue["queued"] else ""
    yield f"  queue       {queue['running']} running, {queue['queued']} waiting{oldest}"
    for each in found["workers"]:
        seconds = each["swept_seconds"]
        swept = "not swept yet" if seconds is None else f"swept {output.duration(seconds)} ago"
        jobs = f"{each['running']} of {each['slots']} slots, {swept}"
        yield f"  worker      {output.clean(each['name'])}: {jobs}"
    for each in found["certificates"]:
        yield f"  {'certificate' if each['name'] == 'server' else 'own CA':<12}ends {each['ends_at'][:10]}"
    yield f"  disk        {output.size(disk['free'])} of {output.size(disk['total'])} free"
    made = f"made {_ago(backup['at'])} ago" if backup["at"] else "none yet"
    yield f"  own backup  {made if backup['every_hours'] else 'switched off'}"
    for each in found["findings"]:
        yield f"  {_mark(each['severity'], plain)} {each['title']} {each['fix']}"


def frame(seen: dict[str, Any], width: int, height: int, *, plain: bool = False) -> list[str]:
    """Return the lines of one picture, at most `height`, each cut to `width` columns."""
    counts: dict[str, int] = {}
    for host in seen["hosts"]:
        counts[host["protection"]] = counts.get(host["protection"], 0) + 1
    totals = ", ".join(
        f"{count} {name}" for name, count in sorted(counts.items(), key=lambda c: WORST.get(c[0], 4))
    )
    title = f"SaveOS  {output.when(seen['at'])}  {len(seen['hosts'])} hosts: {totals or 'none'}"
    lines = [_paint(title[:width], "bold", plain), "", *_system_lines(seen["system"], plain=plain)]
    if seen["alerts"]:
        lines += ["", _paint("Open alerts", "bold", plain)]
        lines += [_alert(each, plain) for each in seen["alerts"][:5]]
        lines += [f"  … {len(seen['alerts']) - 5} more"] if len(seen["alerts"]) > 5 else []
    if seen["jobs"]:
        lines += ["", _paint("Running jobs", "bold", plain)]
        lines += [
            f"  {each['operation']:<14} {each['hosts_done']}/{each['hosts_total']} hosts"
            for each in seen["jobs"][:5]
        ]
    lines += ["", *_table(seen["hosts"], max(3, height - len(lines) - 3), plain)]
    return [_cut(line, width) for line in lines[:height]]


def _alert(alert: dict[str, Any], plain: bool) -> str:
    return f"  {_mark(alert['severity'], plain)} {output.clean(alert['summary'] or alert['title'])}"


def _table(hosts: Sequence[dict[str, Any]], room: int, plain: bool) -> Iterator[str]:
    head = f"{'HOST':<24} {'PROTECTION':<11} {'BACKUP':>8} {'SEEN':>8} {'DISK':>5} {'LOAD':>5} {'MEMORY':>9}"
    yield _paint(f"  {head} VERSIONS", "bold", plain)
    for host in hosts[:room]:
        disk = f"{host['disk_free_percent']}%" if host["disk_free_percent"] is not None else "-"
        load = f"{host['load_per_cpu']:.1f}" if isinstance(host["load_per_cpu"], int | float) else "-"
        free = host["memory_available_bytes"]
        memory = output.size(free) if isinstance(free, int) else "-"
        versions = " ".join(output.clean(host[name]) for name in ("agent", "borg") if host[name])
        state = host["state"] if host["protection"] in ("protected", "none") else "critical"
        ages = f"{_ago(host['last_backup_at']):>8} {_ago(host['seen_at']):>8}"
        yield (
            f"{_mark(state, plain)} {output.clean(host['name'])[:24]:<24} {host['protection']:<11} "
            f"{ages} {disk:>5} {load:>5} {memory:>9} {versions}"
        )
    if len(hosts) > room:
        yield f"  … {len(hosts) - room} more hosts, all better off"


def _cut(line: str, width: int) -> str:
    """Cut a line to a width in columns; escape sequences take none, and the last one ends colours."""
    shown, kept, place = 0, [], 0
    while place < len(line):
        if line[place] == "\x1b":
            end = line.index("m", place) + 1
            kept.append(line[place:end])
            place = end
            continue
        if shown == width:
            place += 1
            continue
        kept.append(line[place])
        shown += 1
        place += 1
    return "".join(kept)


def _size() -> tuple[int, int]:
    found = shutil.get_terminal_size((100, 40))
    return found.columns, found.lines


# ---- running ------------------------------------------------------------------------------------------------


def _stream(client: Client, interval: float) -> None:
    """Write a look again and again, until the reader is gone or Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        while True:
            seen = look(client)
            if output.is_json():
                print(json.dumps(seen, ensure_ascii=False), flush=True)
            else:
                print("\n".join(frame(seen, 120, 10_000, plain=True)), end="\n\n", flush=True)
            time.sleep(interval)


def _live(client: Client, interval: float) -> None:
    """Draw over and over, until q or Ctrl-C; a controller that is away is said and tried again."""
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    shown: list[str] = []
    try:
        tty.setcbreak(handle)
        sys.stdout.write(ENTER)
        while True:
            width, height = _size()
            try:
                shown = frame(look(client), width, height - 1)
                foot = f"q ends  every {interval:g} s"
            except CommandError as error:
                foot = f"✖ {output.clean(error)}"
            text = "".join(f"{line}\x1b[K\r\n" for line in shown[: height - 1])
            sys.stdout.write(f"{HOME}{text}{CLEAR}{_cut(foot, width)}")
            sys.stdout.flush()
            if _key(handle, interval) in ("q", "Q", "\x1b", "\x04"):
                return
    except KeyboardInterrupt:
        return
    finally:
        sys.stdout.write(LEAVE)
        sys.stdout.flush()
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def _key(handle: int, seconds: float) -> str:
    """Return the key that was pressed within so many seconds, "" for none; another key looks at once."""
    ready, _, _ = select.select([handle], [], [], seconds)
    return os.read(handle, 1).decode("latin-1") if ready else ""
