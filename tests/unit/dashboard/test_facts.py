"""How pages name what operations and rules tell in their own words."""

from collections.abc import Iterator

import pytest
from saveos.core import i18n
from saveos.dashboard.retention import kept_by
from saveos.dashboard.views.maintenance import _facts


@pytest.fixture(autouse=True)
def french() -> Iterator[None]:
    i18n.use("fr")
    yield
    i18n.use("en")


def test_rules_of_retention_are_in_the_readers_language() -> None:
    assert [kept_by(each) for each in ("within 3", "daily 12", "protected", "")] == [
        "récente 3",
        "quotidienne 12",
        "protégée",
        "",
    ]


def test_a_summarys_facts_have_names_units_and_words() -> None:
    told = {"freed_bytes": 3 * 1024**2, "pending": 1200, "healthy": True, "own_rule_bytes": 0, "list": []}
    assert _facts(told) == [
        ("Libéré", "3\xa0Mio"),
        ("Mises à jour en attente", "1\u202f200"),
        ("En ordre ensuite", "oui"),
        ("Own rule", "0\xa0o"),
    ]
