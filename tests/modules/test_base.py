"""The base class, as an author's own tests use it."""

from pathlib import Path

import pytest

from app.exceptions import ValidationError
from modules.base import BaseModule


def test_base_module_outside_the_client(tmp_path: Path) -> None:
    """An author's test can use a module without a client: schema, files, duration."""

    class Picky(BaseModule):
        schema = {"type": "object", "required": ["x"], "additionalProperties": False, "properties": {"x": {}}}

    with pytest.raises(ValidationError, match="'x'"):
        Picky({}).validate()
    module = Picky({"x": 1})
    module.validate()
    module.run()
    module.cleanup()

    assert module.get_duration().total_seconds() >= 0
    assert not module.will_exist(str(tmp_path / "none"))
    assert module.will_exist(str(tmp_path))
