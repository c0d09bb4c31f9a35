"""The words of `modules.selection`; the modules' tests choose streams and tracks by them."""

import pytest

from modules.selection import is_in


@pytest.mark.parametrize(
    ("language", "told", "is_found"),
    [
        ("ger", "deu", True),
        ("de", "ger", True),
        ("deu", "de", True),
        ("ger", "DEU", True),
        ("GER", "ger", True),
        ("pt-br", "pt-BR", True),
        ("ger", "eng", False),
        ("d*", "deu", False),
        ("und", "deu", False),
    ],
)
def test_languages(language: str, told: str, is_found: bool) -> None:
    """All codes of a language mean it, whoever wrote them how; files of Ogg have any case of letters."""
    assert is_in(language, [told]) is is_found
