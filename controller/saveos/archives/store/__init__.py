"""The catalogue's store: which files every archive holds, as intervals: an unchanged file costs nothing.

A store is one encrypted SQLite file (SQLCipher) that several repositories share, apart from the main
database. A path is a directory, a name and the archives between which one version of it lived:

    entries(repository, directory, name, first, last, size, mtime, mode)

`first` and `last` number a repository's archives in the order of their time; `last` is empty while the
version lives. Names and directories are stored once for all repositories of a store, and names are
searched by a trigram index (FTS5); `places` leads from a name to its paths, whatever the number of their
versions. Names are bytes: whatever Linux allows survives. See decision 0012.

The rooms: `file` (tables, opening, transactions), `taking` and `forgetting` (what writes), `browsing` and
`searching` (what reads), `entries` (what they tell of).
"""

from saveos.archives.store.browsing import Browsing
from saveos.archives.store.forgetting import Forgetting
from saveos.archives.store.searching import Searching
from saveos.archives.store.taking import Taking


class Store(Taking, Forgetting, Browsing, Searching):
    """One store, opened. Not for several threads at once; several processes may open the same file."""
