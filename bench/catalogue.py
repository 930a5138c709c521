"""The catalogue: how large it is, how fast it takes archives over and answers, and what it spares Borg.

The first rows measure the store alone, with paths that are made up; the last ones a real tree on a host of
the lab, through HTTP, against bare borg. Both extremes: one large host, and many hosts with like names.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import TypeVar

import sqlcipher3.dbapi2 as sqlite
from fleet import Fleet, at_rest, start_fleet
from saveos.archives.catalogue import SHARDS
from saveos.archives.store import Store
from saveos.archives.store.entries import ROOT, Item, parent
from saveos.archives.store.searching import Found, Wanted, ask_all
from serving import until
from support import on

from bench.backup import BARE, MAKE, bare_backup, http_backup, prepare_bare
from bench.common import Table, more, timed

T = TypeVar("T")
KEY = bytes(range(32))
FILE, DIRECTORY = 0o100644, 0o040755
PER_DIRECTORY = 40
WORDS = ("report", "invoice", "ledger", "backup", "config", "server", "client", "archive", "photo", "module")
SHAPES = ("fan", "tree", "usr", "lib", "share", "doc", "man", "python", "node", "locale", "icons", "cache")


def flags(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's flags."""
    parser.add_argument("--catalogue-paths", type=int, default=200_000, help="paths of the one large host")
    parser.add_argument(
        "--catalogue-archives", type=int, default=20, help="its archives, 0.1 %% changed in each"
    )
    parser.add_argument("--catalogue-hosts", type=int, default=30, help="hosts with like names")
    parser.add_argument("--catalogue-host-paths", type=int, default=10_000, help="paths of each of them")
    parser.add_argument("--catalogue-files", type=int, default=20_000, help="files of the real tree; 0: none")
    parser.add_argument("--catalogue-requests", type=int, default=100, help="directories shown, and searches")


def run(options: argparse.Namespace) -> Table:
    """Measure the store, then real archives; the issue asks for 1,000,000 paths and 10,000 x 10,000."""
    table = Table(
        f"Catalogue: 1 x {options.catalogue_paths:,} and {options.catalogue_hosts:,} x"
        f" {options.catalogue_host_paths:,} paths, a real tree of {options.catalogue_files:,} files",
        ("what", "aim", "seen", "load"),
        "Full sizes: --catalogue-paths 1000000 --catalogue-archives 100 --catalogue-hosts 10000"
        " --catalogue-files 1000000 (some 12 GB and an hour and a half).",
    )
    with tempfile.TemporaryDirectory(prefix="saveos-bench-") as folder:
        measure_large(table, Path(folder) / "large.db", options)
        measure_many(table, Path(folder) / "many", options)
    if options.catalogue_files:
        measure_real(table, options)
    return table


def add(table: Table, what: str, aim: str, seen: str) -> None:
    """Add a row with the machine's load at that time."""
    print(f"  {what}: {seen}", file=sys.stderr, flush=True)
    table.add(what, aim, seen, f"{os.getloadavg()[0]:.1f}")


# ---- the store alone


def measure_large(table: Table, path: Path, options: argparse.Namespace) -> None:
    """One host with nearly all names distinct: the worst case of the index of names."""
    count, requests, host = options.catalogue_paths, options.catalogue_requests, str(uuid.UUID(int=1))
    tree = list(distinct(count))
    rng = random.Random(5)
    with Store(path, KEY) as store:
        first = timed(lambda: store.index(host, "0", 0.0, tree, complete=True))
        size = path.stat().st_size
        add(table, f"first archive of {len(tree):,} paths taken over", "", f"{first:.1f} s")
        add(table, "size with search", "170 bytes a path", f"{size / len(tree):.0f} bytes a path")
        bare = without_search(path)
        add(table, "size without search", "80 bytes a path", f"{bare / len(tree):.0f} bytes a path")
        add_unchanged(table, store, host, tree, first)
        before, versions = path.stat().st_size, 0
        for number in range(10):  # the first ones only fill what pages had left
            many = [item._replace(mtime=number) for item in rng.sample(tree, len(tree) // 10)]
            store.index(host, f"m{number}", 4.0 + number / 10, many, complete=False)
            versions += len(many)
        grown = (path.stat().st_size - before) / versions
        add(
            table, "growth by 10 archives with a tenth changed", "80 bytes a changed path", f"{grown:.0f} bytes"
        )
        changed = max(1, len(tree) // 1000)
        times = []
        for number in range(options.catalogue_archives):
            some = [tree[at]._replace(mtime=10**9 + number) for at in rng.sample(range(len(tree)), changed)]
            times.append(
                timed(lambda each=some, at=number: store.index(host, f"c{at}", 10.0 + at, each, complete=False))
            )
        number = max(store.numbers(host).values())
        directories = sorted({parent(item.path) for item in tree})
        places = [rng.choice(directories) for _ in range(requests)]
        add(
            table,
            "first 200 of a directory",
            "p95 300 ms",
            p95(places, lambda at: store.list_directory(host, number, at)),
        )
        add(
            table,
            "root with its totals",
            "p95 300 ms",
            p95([ROOT] * requests, lambda at: store.list_directory(host, number, at)),
        )
        sought = [f"{rng.choice(WORDS)}-{rng.randrange(count):07x}"[:-2] for _ in range(requests)]
        add(
            table,
            "search for most of a name",
            "p95 1 s",
            p95(sought, lambda text: store.search(Wanted([text]))),
        )
        common = [rng.choice(WORDS) for _ in range(requests)]
        add(
            table,
            "search for a word of 1 name in 10",
            "p95 1 s",
            p95(common, lambda text: store.search(Wanted([text]))),
        )
        add(
            table,
            "newest archive compared with the first",
            "",
            f"{timed(lambda: store.compare(host, 1, number)):.2f} s",
        )


def add_unchanged(table: Table, store: Store, host: str, tree: Sequence[Item], first: float) -> None:
    """Archives that changed nothing, by changes and in full, and one with deletions."""
    seconds = timed(lambda: store.index(host, "u", 1.0, [], complete=False, grown=0))
    add(table, "unchanged archive, by its changes", "", f"{seconds:.3f} s")
    seconds = timed(lambda: store.index(host, "f", 2.0, tree, complete=True))
    add(table, "unchanged archive, listed in full", "", f"{seconds:.1f} s ({seconds / first:.0%} of the first)")
    fewer = tree[: -max(1, len(tree) // 2000)]
    seconds = timed(lambda: store.index(host, "d", 3.0, fewer, complete=True))
    add(table, f"{len(tree) - len(fewer):,} deleted, listed in full", "", f"{seconds:.1f} s")


def measure_many(table: Table, folder: Path, options: argparse.Namespace) -> None:
    """Many hosts of one distribution: their names and directories are alike, a twentieth is their own."""
    hosts, count = options.catalogue_hosts, options.catalogue_host_paths
    like = list(distinct(count, seed=9))
    with ProcessPoolExecutor() as pool:  # one writer a store, as the indexer has
        seconds = timed(
            lambda: list(pool.map(take_over, range(SHARDS), repeat(folder), repeat((hosts, count))))
        )
    paths = hosts * len(like)
    size = sum(each.stat().st_size for each in folder.iterdir())
    seen = f"{seconds:.1f} s, {SHARDS} stores, {os.cpu_count()} processors"
    add(table, f"{hosts:,} hosts of {len(like):,} paths taken over", "", seen)
    add(table, "their size with search", "170 bytes a path", f"{size / paths:.0f} bytes a path")
    rng = random.Random(7)

    def ask(shard: int, most: int, text: str) -> list[Found]:
        with Store(folder / f"{shard:02x}.db", KEY) as store:  # as the API does: opened for each request
            return store.search(Wanted([text]), limit=most)

    def search(text: str) -> int:
        return len(ask_all(range(SHARDS), 200, partial(ask, text=text)))

    sought = [
        like[rng.randrange(len(like))].path.rpartition(b"/")[2].decode()
        for _ in range(options.catalogue_requests)
    ]
    add(table, "search for a name that all have, in all stores", "p95 1 s", p95(sought, search))
    common = [rng.choice(WORDS) for _ in range(options.catalogue_requests)]
    add(table, "search for a word of 1 name in 10, in all stores", "p95 1 s", p95(common, search))
    rare = [f"own-{rng.randrange(hosts)}-{rng.randrange(100) * 20}." for _ in range(options.catalogue_requests)]
    add(table, "search for a name that one has, in all stores", "p95 1 s", p95(rare, search))
    nobody = [f"{rng.randrange(16**9):09x}" for _ in range(options.catalogue_requests)]
    add(table, "search for a name that none has, in all stores", "p95 1 s", p95(nobody, search))


def take_over(shard: int, folder: Path, sizes: tuple[int, int]) -> None:
    """Fill one store with its part of the hosts; `sizes` is how many hosts there are, and paths of each."""
    hosts, count = sizes
    like = list(distinct(count, seed=9))
    with Store(folder / f"{shard:02x}.db", KEY) as store:
        for number in range(shard, hosts, SHARDS):
            store.index(str(uuid.UUID(int=number)), "0", 0.0, own(like, number), complete=True)


def without_search(path: Path) -> int:
    """Return the bytes of a copy without the index of names; browsing and versions still work with it."""
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    connection = sqlite.connect(str(copy), isolation_level=None)
    connection.execute(f"PRAGMA key = \"x'{KEY.hex()}'\"")
    for statement in ("DROP TABLE words", "DROP TABLE places", "VACUUM"):
        connection.execute(statement)
    connection.close()
    size = copy.stat().st_size
    copy.unlink()
    return size


def distinct(count: int, seed: int = 3) -> Iterator[Item]:
    """Yield about so many paths, `PER_DIRECTORY` a directory, with names that hardly repeat."""
    rng = random.Random(seed)
    above: set[bytes] = set()
    folder = b""
    for number in range(count):
        if number % PER_DIRECTORY == 0:
            middle = "/".join(rng.choice(SHAPES) for _ in range(rng.randrange(1, 5)))
            folder = f"/srv/{middle}/{rng.choice(WORDS)}{number // PER_DIRECTORY}".encode()
            part = folder
            while part != ROOT and part not in above:
                above.add(part)
                yield Item(part, 0, 1, DIRECTORY)
                part = parent(part)
        name = f"{rng.choice(WORDS)}-{number:07x}.{rng.choice(('txt', 'conf', 'py', 'gz'))}"
        yield Item(folder + b"/" + name.encode(), rng.randrange(10**6), 10**9 + rng.randrange(10**8), FILE)


def own(like: Sequence[Item], number: int) -> Iterator[Item]:
    """Yield a host's paths: those that all have, one in twenty with a name of its own."""
    for at, item in enumerate(like):
        if at % 20 == 0 and item.mode == FILE:
            yield item._replace(path=parent(item.path) + f"/own-{number}-{at}.dat".encode())
        else:
            yield item


def p95(inputs: Sequence[T], act: Callable[[T], object]) -> str:
    """Return the median and the 95th percentile of how long an act takes over inputs."""
    times = sorted(timed(lambda each=each: act(each)) for each in inputs)
    return f"{times[int(len(times) * 0.95)] * 1000:.1f} ms (median {times[len(times) // 2] * 1000:.1f})"


# ---- real archives


def measure_real(table: Table, options: argparse.Namespace) -> None:
    """A real tree: backed up, catalogued, browsed and one file restored through HTTP, against bare borg."""
    with start_fleet({"vault": "bookworm", "web": "bookworm"}) as fleet:
        on(fleet.web, "rm -rf /srv/data")
        on(fleet.web, MAKE, str(options.catalogue_files), "1000", seconds=3000)
        borg = prepare_bare(fleet)
        bare_backup(fleet, borg)
        first = http_backup(fleet)
        add(
            table,
            "first backup, then its listing sent and taken over",
            "",
            f"{first:.1f} s, then {indexed(fleet):.1f} s",
        )
        at_rest(fleet.web)
        again, bare = http_backup(fleet), bare_backup(fleet, borg)
        later = indexed(fleet)
        seen = f"{later:.1f} s after a job of {again:.1f} s (bare borg: {bare:.1f} s)"
        add(table, "unchanged: seconds until it is in the catalogue", "10 % of the backup", seen)
        at_rest(fleet.web)
        on(fleet.web, "rm -rf /srv/data/0001")
        again = http_backup(fleet)
        add(table, "500 files deleted: the same", "", f"{indexed(fleet):.1f} s after a job of {again:.1f} s")
        at_rest(fleet.web)
        measure_browsing(table, fleet, borg, options)
        measure_restore(table, fleet, borg)


def newest(fleet: Fleet) -> dict[str, object]:
    """Return the newest archive of the host."""
    found: dict[str, object] = fleet.controller.items("/archives?host=web")[0]
    return found


def indexed(fleet: Fleet) -> float:
    """Return how long it takes from now until the newest archive is in the catalogue."""
    return timed(
        lambda: until(lambda: newest(fleet)["catalogue"] == "indexed", 1800, "the archive in the catalogue")
    )


def measure_browsing(table: Table, fleet: Fleet, borg: str, options: argparse.Namespace) -> None:
    """One directory through HTTP, without any Borg process, against `borg list` of it."""
    path = f"/archives/{newest(fleet)['id']}/files?path=/srv/data/0000"
    seen = p95(range(options.catalogue_requests), lambda _: fleet.controller.get(path))
    last = f"{BARE.strip()} list --last 1 --short"
    name = on(fleet.web, last, fleet.vault.ip, borg).strip()
    bare = timed(
        lambda: on(fleet.web, f"{BARE.strip()} list ::{name} srv/data/0000", fleet.vault.ip, borg, seconds=600)
    )
    add(table, "a directory through HTTP, against `borg list`", "p95 300 ms", f"{seen}; borg list {bare:.1f} s")


def measure_restore(table: Table, fleet: Fleet, borg: str) -> None:
    """One file: a job from its POST to the end of its event stream, against bare `borg extract`."""
    name = on(fleet.web, f"{BARE.strip()} list --last 1 --short", fleet.vault.ip, borg).strip()
    extract = f"mkdir -p /root/out && cd /root/out\n{BARE.strip()} extract ::{name} srv/data/0000/000007"
    body = {"archive": newest(fleet)["id"], "paths": ["/srv/data/0000/000007"]}
    bare, job = [], []
    for _ in range(3):
        bare.append(timed(lambda: on(fleet.web, extract, fleet.vault.ip, borg, seconds=600)))
        job.append(timed(lambda: fleet.controller.done("restore", "web", **body)))
    seen = f"{more(job, bare)} (job {sorted(job)[1]:.1f} s, bare {sorted(bare)[1]:.1f} s)"
    add(table, "one file restored, against `borg extract`", "4 s more", seen)
