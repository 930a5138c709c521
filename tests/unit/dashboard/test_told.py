"""What hosts tell: by its code in the reader's language, in English as it was told."""

from collections.abc import Iterator

import pytest
from saveos.core import i18n
from saveos.dashboard import told
from saveos.dashboard.told import Told


@pytest.fixture
def french() -> Iterator[None]:
    i18n.use("fr")
    yield
    i18n.use("en")


def test_english_pages_show_what_was_told() -> None:
    assert told.error("disk_full", "A disk is full (/srv).") == Told("A disk is full (/srv).")
    assert told.finding("reboot-needed", "The host must be started anew.").detail == ""
    assert told.kind("apt-archives") == "Package files of apt"


def test_french_pages_show_the_code_s_sentence_and_keep_the_words(french: None) -> None:
    assert told.error("disk_full", "A disk is full (/srv).") == Told(
        "Un disque est plein. Libérez-y de l’espace et relancez ; les archives précédentes sont intactes.",
        "A disk is full (/srv).",
    )
    assert told.finding("reboot-needed", "It must be started anew.").text == "L’hôte doit être redémarré"
    assert told.alert("overdue", "web is late").detail == ""
    assert told.alert("clock", "340 s off").detail == "340 s off"


def test_what_has_no_code_stays_as_it_is(french: None) -> None:
    assert told.error("", "Something new.") == Told("Something new.")
    assert told.finding("of-a-newer-agent", "Something new.") == Told("Something new.")
    assert (told.kind("of-a-newer-agent"), told.error("disk_full", "")) == ("of-a-newer-agent", Told(""))


def test_what_a_job_waits_for_is_named(french: None) -> None:
    assert told.waits("host web-1: backup 01a2") == "hôte web-1 (Sauvegarde)"
    assert (told.waits("repository:7"), told.waits("a b c")) == ("repository:7", "a b c")


def test_lengths_of_time_are_words(french: None) -> None:
    shown = [i18n.period(each).replace("\N{NO-BREAK SPACE}", " ") for each in ("7d", "1m", "48H", "odd", "")]
    assert shown == ["7 jours", "1 mois", "48 heures", "odd", ""]
