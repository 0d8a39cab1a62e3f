"""docs/kept.md, against the list of what is told."""

import re
from pathlib import Path

from jaxdeblur.media.lost import LOST

PAGE = Path(__file__).parents[2] / "docs" / "kept.md"


def test_the_page_has_every_sentence_and_no_other():
    rows = re.findall(r"^\| (.+?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(row for row in rows if row != "told") == sorted(LOST.values())


def test_a_sentence_goes_on_from_the_files_name():
    assert len(set(LOST.values())) == len(LOST)
    for sentence in LOST.values():
        assert re.match(r"(has|is|holds|tells) ", sentence)
