"""JSON schemas of the bundled modules' task data, and what is wrong with data, in words."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def load(name: str) -> Mapping[str, Any]:
    """The schema in `modules/schema/NAME.json`."""
    schema: Mapping[str, Any] = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
    return schema


def problems(data: Any, schema: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with `data`, a line each, with the path to it; empty if nothing is."""
    import jsonschema

    validator = jsonschema.Draft202012Validator(schema)
    return [
        line
        for error in sorted(validator.iter_errors(data), key=lambda error: [str(part) for part in error.absolute_path])
        for line in _lines(error)
    ]
