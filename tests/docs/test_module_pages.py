"""docs/modules/NAME.md: made from the schemas, with examples that work."""

from pathlib import Path

import pytest

from scripts.module_pages import NAMES, PAGES, ROOT, make_page
from tests.support.media import make_clip
from tests.support.supervised import TOOLS, Supervised


@pytest.mark.parametrize("name", NAMES)
def test_pages_are_fresh(name: str) -> None:
    """A page is what the script makes of the schema as it is now, and each key has a meaning."""
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")

    assert page == make_page(name), "run `python scripts/module_pages.py`"
    assert "|  |" not in page


@pytest.mark.parametrize("name", NAMES)
def test_examples_work(supervised: Supervised, tmp_path: Path, name: str) -> None:
    """The job on a module's page does what it says, on a film."""
    supervised.configure(modules=TOOLS)
    make_clip(tmp_path / "film.mkv")
    document = (ROOT / f"examples/jobs/{name}.json").read_text(encoding="utf-8")

    done = supervised.run(document, cwd=tmp_path)

    assert done.returncode == 0, done.stderr + done.stdout
    assert "completed" in done.stdout
