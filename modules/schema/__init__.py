"""JSON schemas of the bundled modules' task data, and messages for a person about data that does not conform.

A schema's `description` states the expected form for keywords that cannot (`pattern`, `anyOf`). Besides the standard
formats there are `argument`, a string that can be an argument of a program or a file's name, and `finite`, a number
that is neither infinite nor NaN: Python's JSON parser accepts both.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ipc.words import MAX_VALUE as MAX_VALUE


def load(name: str) -> Mapping[str, Any]:
    """The schema in `modules/schema/NAME.json`."""
    schema: Mapping[str, Any] = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
    return schema


def beside(module: str) -> Mapping[str, Any] | None:
    """The schema in `NAME.schema.json` beside the imported module's file `NAME.py`; `None` if there is none."""
    file = getattr(sys.modules.get(module), "__file__", None)
    path = f"{os.path.splitext(file)[0]}.schema.json" if file else None
    if path is None or not os.path.isfile(path):
        return None
    schema: Mapping[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return schema


def problems(data: Any, schema: Mapping[str, Any]) -> list[str]:
    """All problems of `data`, a line each, with the path to the wrong value. Empty if the data conforms."""
    # jsonschema is slow to import: the zygote does that when it has nothing else to do.
    from modules.schema.checking import find_problems

    return find_problems(data, schema)
