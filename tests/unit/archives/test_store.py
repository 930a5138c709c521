"""The catalogue's store against a plain model of archives: dictionaries of paths."""

import re
import stat
import tempfile
from pathlib import Path

import pytest
import sqlcipher3.dbapi2 as sqlite
from hypothesis import given, settings
from hypothesis import strategies as st
from saveos.archives.store import Store
from saveos.archives.store.entries import Item, base, parent
from saveos.archives.store.searching import OutOfTime, Wanted
from saveos.archives.store.taking import OutOfOrder

KEY = bytes(range(32))
FILE, DIRECTORY = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
REPOSITORY = "0193c0de-0000-7000-8000-000000000001"
OTHER = "0193c0de-0000-7000-8000-000000000002"
Tree = dict[bytes, tuple[int, int, int]]

parts = st.sampled_from(
    [b"a", b"bee", b"nginx.conf", b"caf\xc3\xa9", b"\xff\xfe", b"new\nline", b"%_", b'"x"', b"a" * 255]
)
trees = st.dictionaries(
    st.lists(parts, min_size=1, max_size=4).map(lambda each: b"/" + b"/".join(each)),
    st.tuples(st.integers(0, 2**40), st.integers(0, 2**33)),
    max_size=12,
)


def whole(files: dict[bytes, tuple[int, int]]) -> Tree:
    """Return a tree with the directories that hold the files; a path that holds others is a directory."""
    tree: Tree = {}
    for path in files:
        above = parent(path)
        while above != b"/":
            tree[above] = (0, 7, DIRECTORY)
            above = parent(above)
    return {path: (*meta, FILE) for path, meta in files.items() if path not in tree} | tree


def items(tree: Tree) -> list[Item]:
    return [Item(path, *meta) for path, meta in sorted(tree.items())]


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.db", KEY) as opened:
        yield opened


def names_left(before: Tree, tree: Tree) -> dict[bytes, set[bytes]]:
    """Return all names of each directory in which some came or went: what a host sees of a deletion."""
    places = {b"/"} | {path for path, meta in tree.items() if meta[2] == DIRECTORY}
    left = {place: {base(path) for path in tree if parent(path) == place} for place in places}
    kinds = [{(path, meta[2]) for path, meta in each.items()} for each in (before, tree)]
    touched = {parent(path) for path, _ in kinds[0] ^ kinds[1]}
    return {place: names for place, names in left.items() if place in touched}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(trees, st.sampled_from(("all", "gone", "names"))), min_size=1, max_size=5))
def test_every_archive_reads_back_as_it_was(history):
    with tempfile.TemporaryDirectory() as directory, Store(Path(directory) / "s.db", KEY) as store:
        model: list[Tree] = []
        for number, (files, way) in enumerate(history, 1):
            tree = whole(files)
            before = model[-1] if model else {}
            changes = {path: meta for path, meta in tree.items() if before.get(path) != meta}
            gone = before.keys() - tree.keys()
            complete = way == "all" or not model
            listed = tree if complete else changes
            store.index(
                REPOSITORY,
                f"{number:064x}",
                number,
                items(listed),
                complete=complete,
                missing=gone if way == "gone" and not complete else (),
                names=names_left(before, tree) if way == "names" and not complete else None,
            )
            model.append(tree)
        for number, tree in enumerate(model, 1):
            for directory_path in {parent(path) for path in tree} | {b"/"}:
                expected = sorted(path for path in tree if parent(path) == directory_path)
                found = store.list_directory(REPOSITORY, number, directory_path)
                assert [entry.path for entry in found] == expected
                for entry in found:
                    assert (entry.size, entry.mtime, entry.mode) == tree[entry.path]
                    before = model[number - 2].get(entry.path) if number > 1 else tree[entry.path]
                    mark = "new" if before is None else "" if before == tree[entry.path] else "changed"
                    assert entry.changed == mark
            files = {path: meta for path, meta in tree.items() if meta[2] == FILE}
            for directory_path in {path for path, meta in tree.items() if meta[2] == DIRECTORY} | {b"/"}:
                below = [
                    meta[0]
                    for path, meta in files.items()
                    if path.startswith(directory_path.rstrip(b"/") + b"/")
                ]
                assert store.total(REPOSITORY, number, directory_path) == (len(below), sum(below))
        old, new = model[0], model[-1]
        different = {path for path in old.keys() | new.keys() if old.get(path) != new.get(path)}
        compared = store.compare(REPOSITORY, 1, len(model), limit=1000)
        assert {each.entry.path for each in compared} == different
        for each in compared:
            path = each.entry.path
            kind = "removed" if path not in new else "added" if path not in old else "changed"
            assert each.kind == kind
            assert (each.entry.size, each.entry.mtime, each.entry.mode) == (new.get(path) or old[path])
            assert each.old_size == (old[path][0] if path in old else None)


def test_unchanged_archives_cost_nothing(store, tmp_path):
    tree = whole({b"/srv/%d/%d" % (n % 100, n): (n, n) for n in range(5000)})
    store.index(REPOSITORY, "1" * 64, 1, items(tree), complete=True)
    rows = store._one("SELECT (SELECT count(*) FROM entries) + (SELECT count(*) FROM totals)")
    for number in range(2, 20):
        outcome = store.index(REPOSITORY, f"{number:064x}", number, [], complete=False)
        assert (outcome.number, outcome.added, outcome.ended) == (number, 0, 0)
    assert store._one("SELECT (SELECT count(*) FROM entries) + (SELECT count(*) FROM totals)") == rows
    assert store.total(REPOSITORY, 19) == (5000, sum(range(5000)))


def test_an_archive_is_indexed_once_and_in_order(store):
    assert store.index(REPOSITORY, "1" * 64, 10, [Item(b"/a", 1, 1, FILE)], complete=True)
    assert store.index(REPOSITORY, "1" * 64, 10, [], complete=True) is None
    assert [entry.path for entry in store.list_directory(REPOSITORY, 1, b"/")] == [b"/a"]
    with pytest.raises(OutOfOrder):
        store.index(REPOSITORY, "2" * 64, 9, [], complete=True)
    assert store.numbers(REPOSITORY) == {"1" * 64: 1}


def test_a_failed_listing_leaves_nothing(store):
    def broken():
        yield Item(b"/a", 1, 1, FILE)
        raise OSError("the connection broke")

    with pytest.raises(OSError):
        store.index(REPOSITORY, "1" * 64, 1, broken(), complete=True)
    assert store.numbers(REPOSITORY) == {}
    assert store.search(Wanted(["a"])) == []


def test_versions_of_a_file_survive_its_end(store):
    for number, tree in enumerate(({b"/etc/a": (1, 1)}, {b"/etc/a": (2, 2)}, {}, {b"/etc/a": (3, 3)}), 1):
        store.index(REPOSITORY, f"{number:064x}", number, items(whole(tree)), complete=True)
    assert [(each.first, each.last, each.size) for each in store.versions(REPOSITORY, b"/etc/a")] == [
        (4, None, 3),
        (2, 2, 2),
        (1, 1, 1),
    ]


def test_search_finds_by_a_part_of_the_name_in_one_repository_or_all(store):
    store.index(REPOSITORY, "1" * 64, 1, items(whole({b"/etc/nginx/nginx.conf": (1, 1)})), complete=True)
    store.index(
        OTHER, "2" * 64, 1, items(whole({b"/srv/nginx.conf.old": (2, 2), b'/srv/"x"': (1, 1)})), complete=True
    )

    def found(**wanted):
        return {each.entry.path for each in store.search(Wanted(**wanted))}

    assert {(each.repository, each.entry.path) for each in store.search(Wanted(["nginx.con"]))} == {
        (REPOSITORY, b"/etc/nginx/nginx.conf"),
        (OTHER, b"/srv/nginx.conf.old"),
    }
    assert found(words=["NGINX.con"], repositories=[OTHER]) == {b"/srv/nginx.conf.old"}
    assert found(words=['"x"']) == {b'/srv/"x"'}
    assert found(words=["x"], repositories=[REPOSITORY]) == {b"/etc/nginx", b"/etc/nginx/nginx.conf"}
    assert found(words=["nginx"], folder="nginx/") == {b"/etc/nginx/nginx.conf"}
    assert found(words=["nginx"], folder="/nginx/") == set()
    assert found(words=["nginx"], pattern=re.compile(r"/srv/.*\.old")) == {b"/srv/nginx.conf.old"}
    assert found(words=["nginx.conf"], size=(2, None)) == {b"/srv/nginx.conf.old"}
    assert found(words=["nginx.conf"], mtime=(None, 1)) == {b"/etc/nginx/nginx.conf"}


def test_search_answers_alike_whatever_leads_to_the_names(store):
    """By the index, by the folder or by every name: short words, globs, folders in any case, filters."""
    tree = whole(
        {b"/etc/nginx/nginx.conf": (1, 1), b"/etc/a.c": (2, 2), b"/srv/b/x.c": (3, 3), b"/srv/c.css": (4, 4)}
    )
    store.index(REPOSITORY, "1" * 64, 1, items(tree), complete=True)

    def found(**wanted):
        return {each.entry.path for each in store.search(Wanted(**wanted))}

    store.index(OTHER, "2" * 64, 1, items(whole({b"/n%d" % n: (1, 1) for n in range(60)})), complete=True)
    assert [store._folder_leads(Wanted([word], "/srv/b/")) for word in ("x", "x.c")] == [True, False]
    assert not store._folder_leads(Wanted(["x"], "/"))
    assert found(words=["1"], folder="/") == {b"/n%d" % n for n in range(60) if b"1" in b"%d" % n}
    assert found(words=["x"], folder="/etc/") == {b"/etc/nginx", b"/etc/nginx/nginx.conf"}
    assert found(words=["x."], folder="b/") == {b"/srv/b/x.c"}
    assert found(words=["conf"], folder="/ETC/NGINX/") == {b"/etc/nginx/nginx.conf"}
    assert found(folder="/srv/", size=(3, 3)) == {b"/srv/b/x.c"}
    assert found(words=[".c"], glob="*.c") == {b"/etc/a.c", b"/srv/b/x.c"}
    assert found(words=[".c"], glob="*.c", folder="/srv/") == {b"/srv/b/x.c"}
    assert found(words=["c"], folder="/etc/", mtime=(2, None)) == {b"/etc/a.c"}


def test_what_was_sought_comes_first_and_what_takes_too_long_ends(store):
    files = {b"/srv/%d/notes.%d" % (n, n): (n, n) for n in range(300)} | {b"/z/notes": (1, 1)}
    store.index(REPOSITORY, "1" * 64, 1, items(whole(files)), complete=True)
    assert [each.entry.path for each in store.search(Wanted(["notes"]), limit=1)] == [b"/z/notes"]
    with pytest.raises(OutOfTime):
        store.search(Wanted(size=(10**9, None)), deadline=0)
    assert len(store.search(Wanted(["notes"]), limit=500)) == 301


def test_a_hit_is_the_newest_version_that_fits_and_that_an_archive_holds(store):
    for number, size in enumerate((5, 500, 50_000), 1):
        tree = whole({b"/srv/log": (size, number), b"/srv/other": (number, number)})
        store.index(REPOSITORY, f"{number:064x}", number, items(tree), complete=True)
    (hit,) = store.search(Wanted(["log"], size=(None, 1000)))
    assert (hit.entry.size, hit.borg_id, hit.lives) == (500, f"{2:064x}", True)
    store.forget_archives(REPOSITORY, [f"{1:064x}", f"{2:064x}"])
    (hit,) = store.search(Wanted(["log"]))
    assert (hit.entry.size, hit.borg_id) == (500, f"{2:064x}")


def test_names_that_no_path_has_any_more_are_forgotten(store):
    """Else a cache with other names each day would let the store grow for ever."""
    odd = b"/srv/cache/\xffsession-%d"
    for number in range(1, 4):
        tree = whole(
            {odd % number: (1, 1), b"/srv/kept": (1, 1)} | ({b"/srv/once/a": (1, 1)} if number == 1 else {})
        )
        store.index(REPOSITORY, f"{number:064x}", number, items(tree), complete=True)
    store.index(OTHER, "9" * 64, 1, items(whole({b"/var/once/\xffsession-2": (1, 1)})), complete=True)
    store.forget_archives(REPOSITORY, [f"{3:064x}"])
    names = {row[0] for row in store._all("SELECT name FROM names")}
    assert names == {b"srv", b"var", b"cache", b"once", b"kept", b"\xffsession-2", b"\xffsession-3"}
    assert {row[0] for row in store._all("SELECT path FROM directories")} >= {
        b"/srv",
        b"/srv/cache",
        b"/var/once",
    }
    assert not store._one("SELECT 1 FROM directories WHERE path=?", b"/srv/once")
    assert [each.entry.path for each in store.search(Wanted(["session"]))] == [
        b"/var/once/\xffsession-2",
        b"/srv/cache/\xffsession-3",
    ]
    assert store._all("SELECT rowid FROM words WHERE words MATCH '\"session-1\"'") == []
    tree = whole({odd % 1: (1, 1), b"/srv/once/a": (2, 2)})
    store.index(REPOSITORY, f"{4:064x}", 4, items(tree), complete=True)
    assert [each.entry.path for each in store.search(Wanted(["session-1"]))] == [odd % 1]
    assert [entry.path for entry in store.list_directory(REPOSITORY, 4, b"/srv/once")] == [b"/srv/once/a"]


def test_marks_are_against_the_archive_before_that_is_there(store):
    for number, size in enumerate((1, 2, 2, 3), 1):
        tree = whole({b"/a": (size, 1), b"/b": (1, 1)} | ({b"/c": (1, 1)} if number > 1 else {}))
        store.index(REPOSITORY, f"{number:064x}", number, items(tree), complete=True)

    def marks(number):
        return {entry.path: entry.changed for entry in store.list_directory(REPOSITORY, number, b"/")}

    assert marks(3) == {b"/a": "", b"/b": "", b"/c": ""}
    store.forget_archives(REPOSITORY, [f"{1:064x}", f"{3:064x}", f"{4:064x}"])
    assert marks(3) == {b"/a": "changed", b"/b": "", b"/c": "new"}
    assert marks(4) == {b"/a": "changed", b"/b": "", b"/c": ""}


def test_what_sources_are_in_is_shown_though_borg_stores_nothing_of_it(store):
    sources = [
        Item(b"/srv/data", 0, 9, DIRECTORY),
        Item(b"/srv/data/x", 5, 9, FILE),
        Item(b"/var/a/\xff", 2, 9, FILE),
    ]
    store.index(REPOSITORY, "1" * 64, 1, sources, complete=True)
    root = store.list_directory(REPOSITORY, 1, b"/")
    assert [(entry.path, entry.files, entry.bytes, entry.is_directory) for entry in root] == [
        (b"/srv", 1, 5, True),
        (b"/var", 1, 2, True),
    ]
    assert [entry.path for entry in store.list_directory(REPOSITORY, 1, b"/var/a")] == [b"/var/a/\xff"]
    store.index(REPOSITORY, "2" * 64, 2, [Item(b"/srv/data/x", 6, 9, FILE)], complete=False)
    store.index(REPOSITORY, "3" * 64, 3, sources[:2], complete=True)
    assert [entry.path for entry in store.list_directory(REPOSITORY, 2, b"/")] == [b"/srv", b"/var"]
    assert [entry.path for entry in store.list_directory(REPOSITORY, 3, b"/")] == [b"/srv"]
    assert [store.holds_directory(REPOSITORY, 3, path) for path in (b"/", b"/srv", b"/var")] == [
        True,
        True,
        False,
    ]


def test_a_repository_is_dropped_alone_and_built_anew(store):
    tree = items(whole({b"/etc/a": (1, 1)}))
    for repository in (REPOSITORY, OTHER):
        store.index(repository, "1" * 64, 1, tree, complete=True)
    store.drop(REPOSITORY)
    assert store.numbers(REPOSITORY) == {}
    assert store.list_directory(REPOSITORY, 1, b"/") == []
    assert [each.path for each in store.list_directory(OTHER, 1, b"/")] == [b"/etc"]
    store.index(REPOSITORY, "1" * 64, 1, tree, complete=True)
    assert store.list_directory(REPOSITORY, 1, b"/") == store.list_directory(OTHER, 1, b"/")


def test_names_that_nobody_else_has_go_with_a_repository_where_that_is_asked(store):
    tree = whole({b"/etc/own/secret\xff": (1, 1), b"/etc/both": (1, 1)})
    store.index(REPOSITORY, "1", 1, items(tree), complete=True)
    store.index(OTHER, "1", 1, items(whole({b"/etc/both": (1, 1)})), complete=True)
    store.drop(REPOSITORY, names=True)
    assert {name for (name,) in store._all("SELECT name FROM names")} == {b"etc", b"both"}
    assert {path for (path,) in store._all("SELECT path FROM directories")} == {b"/", b"/etc"}
    assert store._all("SELECT rowid FROM words WHERE words MATCH 'secret'") == []
    assert [each.entry.path for each in store.search(Wanted(["both"]))] == [b"/etc/both"]


def test_versions_of_archives_that_are_gone_are_dropped(store):
    for number in range(1, 5):
        store.index(REPOSITORY, f"{number:064x}", number, [Item(b"/a", number, 1, FILE)], complete=True)
    assert store.forget_archives(REPOSITORY, [f"{number:064x}" for number in (2, 4)]) == 2
    assert [each.first for each in store.versions(REPOSITORY, b"/a")] == [4, 2]
    assert list(store.numbers(REPOSITORY).values()) == [2, 4]


def test_nothing_can_be_read_without_the_key(tmp_path):
    path = tmp_path / "store.db"
    with Store(path, KEY) as store:
        store.index(REPOSITORY, "1" * 64, 1, [Item(b"/very-secret-name", 1, 1, FILE)], complete=True)
    written = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert b"secret" not in written
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(sqlite.DatabaseError):
        Store(path, bytes(32))


def test_paths_are_taken_apart():
    assert (parent(b"/a"), base(b"/a")) == (b"/", b"a")
    assert (parent(b"/a/b"), base(b"/a/b")) == (b"/a", b"b")


def test_a_store_of_an_earlier_version_is_taken_over(tmp_path):
    path = tmp_path / "store.db"
    tree = whole({b"/etc/a": (1, 1), b"/srv/\xff": (2, 2)})
    with Store(path, KEY) as store:
        store.index(REPOSITORY, "0", 0.0, items(tree), complete=True)
        before = store.search(Wanted(["etc"])), store.list_directory(REPOSITORY, 1, b"/srv")
    connection = sqlite.connect(str(path), isolation_level=None)
    connection.execute(f"PRAGMA key = \"x'{KEY.hex()}'\"")
    connection.executescript(
        "CREATE TABLE old(id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE);"
        "INSERT INTO old SELECT id, name FROM names; DROP TABLE names; ALTER TABLE old RENAME TO names;"
        "DROP TABLE places; CREATE INDEX entries_by_name ON entries(name, repository, directory, first);"
    )
    connection.close()
    with Store(path, KEY) as store:
        assert (store.search(Wanted(["etc"])), store.list_directory(REPOSITORY, 1, b"/srv")) == before
        assert [entry.size for entry in store.versions(REPOSITORY, b"/srv/\xff")] == [2]
        store.index(REPOSITORY, "1", 1.0, items(whole({b"/etc/a": (5, 5)})), complete=True)
        assert [entry.size for entry in store.versions(REPOSITORY, b"/etc/a")] == [5, 1]
        assert len(store.search(Wanted(["etc"]))) == 1


def test_places_go_with_the_versions_that_only_gone_archives_held(tmp_path):
    with Store(tmp_path / "store.db", KEY) as store:
        store.index(REPOSITORY, "0", 0.0, items(whole({b"/a/gone": (1, 1), b"/a/kept": (1, 1)})), complete=True)
        store.index(REPOSITORY, "1", 1.0, items(whole({b"/a/kept": (2, 2)})), complete=True)
        assert store.forget_archives(REPOSITORY, ["1"]) == 2
        assert store.search(Wanted(["gone"])) == []
        assert [each.entry.size for each in store.search(Wanted(["kept"]))] == [2]
        assert store._one("SELECT count(*) FROM places")[0] == 2
        store.drop(REPOSITORY)
        assert store._one("SELECT count(*) FROM places")[0] == 0
