"""The JSON schema of a job, made of the schemas of its modules: editors complete and check job files by it."""

from collections.abc import Mapping
from typing import Any, get_args
from urllib.parse import quote

from app.formats import ID
from supervisor.jobs.model import MAX_TASKS, When

DRAFT = "https://json-schema.org/draft/2020-12/schema"

_TEXT = {"type": "string", "minLength": 1}


def job_schema(modules: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Any]:
    """The schema of a job whose tasks may name these modules. Their schemas are `None` if they have none."""
    known = {name: schema for name, schema in modules.items() if schema is not None}
    return {
        "$schema": DRAFT,
        "title": "Sisyphus job",
        "type": "object",
        "properties": {
            "$schema": {"type": "string"},
            "job_title": _TEXT | {"description": "The job's name; without one, that of the file."},
            "job_name": _TEXT | {"description": "Another word for job_title."},
            "job_id": {"type": "string", "pattern": f"^(?:{ID.pattern})$"},
            "added": True,
            "tasks": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_TASKS,
                "items": {"$ref": "#/$defs/task"},
                "description": "They run one after the other.",
            },
        },
        "required": ["tasks"],
        "additionalProperties": False,
        "$defs": {"task": _task(list(modules), known)}
        | {_key(name): _embedded(name, schema) for name, schema in known.items()},
    }


def _task(names: list[str], known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "module": {"enum": names, "description": "The module that does the task."},
            "data": {"type": "object", "description": "The module's input."},
            "when": {
                "enum": list(get_args(When)),
                "default": "success",
                "description": "Whether the task runs: if no task before it has failed, if one has, or in both cases.",
            },
            "requires": {"type": "array", "items": _TEXT, "description": "Tags that a worker must have."},
        },
        "required": ["module"],
        "additionalProperties": False,
        "allOf": [_condition(name, schema) for name, schema in known.items()],
    }


def _key(name: str) -> str:
    return f"{name} data"


def _pointer(name: str) -> str:
    return "#/$defs/" + quote(_key(name).replace("~", "~0").replace("/", "~1"))


def _condition(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    from jsonschema import Draft202012Validator  # takes 60 ms

    needs_data = [] if Draft202012Validator(schema).is_valid({}) else ["data"]
    return {
        "if": {"properties": {"module": {"const": name}}, "required": ["module"]},
        "then": {"properties": {"data": {"$ref": _pointer(name)}}, "required": needs_data},
    }


def _embedded(name: str, schema: Mapping[str, Any]) -> Any:
    """A module's schema as a part of the whole. One with an id of its own stays as it is: it refers to that."""
    if "$id" in schema:
        return schema
    return _moved({key: value for key, value in schema.items() if key != "$schema"}, _pointer(name))


def _moved(value: Any, place: str) -> Any:
    """A schema whose references begin at `place`: not every editor follows those of a schema within a schema."""
    match value:
        case {"$ref": str(target), **rest} if target.startswith("#"):
            return {"$ref": place + target[1:]} | {key: _moved(each, place) for key, each in rest.items()}
        case Mapping():
            return {key: _moved(each, place) for key, each in value.items()}
        case list():
            return [_moved(each, place) for each in value]
        case _:
            return value
