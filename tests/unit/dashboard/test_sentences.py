"""Services' sentences in French: known again by templates, of which each is one that a service still says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, Field, ValidationError
from saveos.core import i18n
from saveos.dashboard.sentences import MODELS, SERVICES, sentence

SOURCE = Path(i18n.__file__).parents[1]
AGENT = Path(__file__).parents[3] / "roles/agent/files/saveos_agent"


@pytest.fixture(autouse=True)
def french() -> Iterator[None]:
    i18n.use("fr")
    yield
    i18n.use("en")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("there is no host web{1}: see GET /api/v1/hosts", "Il n’existe aucun hôte web{1}."),
        (
            "there is a host w already: choose another name",
            "Il existe déjà un hôte w : choisissez un autre nom.",
        ),
        (
            "there is a host web1 already: choose another name, or change it",
            "Il existe déjà un hôte web1 : choisissez un autre nom, ou modifiez-le.",
        ),
        ("Input should be 'a' or 'b'", "Choisissez parmi : 'a' or 'b'."),
        ("Input should be greater than or equal to 1", "La valeur doit être au moins 1."),
        ("nobody translated this: do that", "Nobody translated this: do that."),
    ],
)
def test_a_sentence_is_translated_with_what_it_names(said: str, shown: str) -> None:
    assert sentence(said) == shown
    i18n.use("en")
    assert sentence(said)[1:].rstrip(".") == said[1:]


def templates_in(directory: Path) -> str:
    """All code of a directory, with its strings in one piece and what they put in left out."""
    text = "\n".join(path.read_text() for path in directory.rglob("*.py") if path.name != "sentences.py")
    text = re.sub(r'"\s*\n\s*f?"', "", text)
    return re.sub(r"\{[^{}\n]*\}", "{}", text)


def test_every_template_is_said_by_a_service_or_the_agent() -> None:
    services, agent = templates_in(SOURCE), templates_in(AGENT)
    said = [re.sub(r"\{\w+\}", "{}", each) for each in SERVICES]
    unsaid = [each for each in said if each not in services]
    # the agent's errors are two sentences: what is wrong, and how to mend it
    assert [each for each in unsaid if any(part not in agent for part in re.split(r"(?<=\.) ", each))] == []


class Model(BaseModel):
    text: Annotated[str, Field(min_length=2, max_length=3)]
    one: Annotated[str, Field(min_length=1)] = "a"
    number: Annotated[int, Field(ge=1, le=9)] = 1
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5


def test_what_models_say_is_translated() -> None:
    said = set()
    for wrong in (
        {},
        {"text": "a", "one": "", "number": 0, "share": 0},
        {"text": "aaaa", "number": 10, "share": 1},
        {"text": 1, "number": "x", "share": "x"},
    ):
        with pytest.raises(ValidationError) as caught:
            Model.model_validate(wrong)
        said |= {str(each["msg"]) for each in caught.value.errors()}
    assert len(said) == len(MODELS) - 1  # all but the choices
    assert [each for each in said if sentence(each).rstrip(".") == each] == []
