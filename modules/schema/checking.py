"""Messages for a person about task data that does not conform to its schema."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema

from ipc.words import MAX_VALUE, encodable, suggestion

_TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "a string",
}

_formats = jsonschema.FormatChecker(formats=())


@_formats.checks("argument")
def _is_argument(value: object) -> bool:
    """True if the kernel accepts it: no NUL, and no surrogates but those for the bytes of a file's name."""
    if not isinstance(value, str):
        return True
    try:
        return b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


@_formats.checks("finite")
def _is_finite(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


_FORMATS = {
    "argument": "text without NUL and lone surrogates",
    "finite": "a finite number",
}


def find_problems(data: Any, schema: Mapping[str, Any]) -> list[str]:
    """The lines of `modules.schema.problems`."""
    validator = jsonschema.Draft202012Validator(schema, format_checker=_formats)
    errors = sorted(validator.iter_errors(data), key=_place)
    return list(dict.fromkeys(line for error in errors for line in _lines(error)))


def _place(error: jsonschema.ValidationError) -> list[tuple[int, int, str]]:
    """A key that sorts errors by path, and list items by number."""
    return [(0, part, "") if isinstance(part, int) else (1, 0, part) for part in error.absolute_path]


def _lines(error: jsonschema.ValidationError) -> Iterator[str]:
    path = _path(error.absolute_path)
    value: Any = error.validator_value
    instance: Any = error.instance
    if "propertyNames" in error.absolute_schema_path:
        yield _line(path, f"{_shown(error.instance)} is no {_described(error, 'name that is allowed here')}")
        return
    match error.validator:
        case "additionalProperties":
            yield from (_line(_join(path, key), _unknown(key, error)) for key in _extras(error))
        case "required":
            yield from (_line(path, f"missing key {name!r}") for name in value if name not in instance)
        case "anyOf" | "oneOf":
            yield from _choices(error, path)
        case _:
            yield _line(path, _expectation(error))


def _expectation(error: jsonschema.ValidationError) -> str:
    value: Any = error.validator_value
    instance: Any = error.instance
    got = _shown(instance)
    match error.validator:
        case "type":
            return f"expected {_type_words(value)}, got {got}"
        case "minItems" | "minProperties":
            what = "item" if error.validator == "minItems" else "key"
            return f"expected at least {'one' if value == 1 else value} {what}{'' if value == 1 else 's'}"
        case "maxItems":
            return f"expected at most {value} items, got {len(instance)}"
        case "minLength" if value == 1:
            return "expected a string that is not empty"
        case "minimum":
            return f"expected {value} or more, got {got}"
        case "maximum":
            return f"expected {value} or less, got {got}"
        case "enum":
            return f"expected {_or([_shown(choice) for choice in value])}, got {got}"
        case "const":
            return f"expected {_shown(value)}, got {got}"
        case "format":
            return f"expected {_FORMATS.get(value, value)}, got {got}"
        case "pattern":
            return f"expected {_described(error, f'text that matches {value}')}, got {got}"
        case _:
            return f"{got} does not satisfy {error.validator} {_shown(value)}"


def _choices(error: jsonschema.ValidationError, path: str) -> Iterator[str]:
    """The problems of data that fits none of several forms, or too many of them."""
    branches: Any = error.validator_value
    if not error.context:
        yield _line(path, f"fits more than one form, expected {_described(error, 'exactly one of them')}")
        return
    if all(set(branch) == {"required"} for branch in branches):
        names = [" and ".join(repr(name) for name in branch["required"]) for branch in branches]
        yield _line(path, f"expected {_or(names)}")
        return
    # If one form alone has the right type, it is the one meant: its own problems help more than a list of forms.
    wrong_type = {child.schema_path[0] for child in error.context if _is_own_type(child, error)}
    meant = [child for child in error.context if child.schema_path[0] not in wrong_type]
    if meant and len({child.schema_path[0] for child in meant}) == 1:
        for child in sorted(meant, key=_place):
            yield from _lines(child)
        return
    forms = [_form(branch) for branch in branches]
    yield _line(path, f"expected {_described(error, _or(forms))}, got {_shown(error.instance)}")


def _is_own_type(child: jsonschema.ValidationError, parent: jsonschema.ValidationError) -> bool:
    return child.validator in {"type", "const", "enum"} and len(child.absolute_path) == len(parent.absolute_path)


def _form(branch: Mapping[str, Any]) -> str:
    if "description" in branch:
        return str(branch["description"])
    if "type" in branch:
        return _type_words(branch["type"])
    return _shown(branch["const"]) if "const" in branch else "another form"


def _extras(error: jsonschema.ValidationError) -> list[str]:
    instance: Any = error.instance
    return [key for key in instance if key not in _known(error)]


def _known(error: jsonschema.ValidationError) -> list[str]:
    schema: Any = error.schema
    return list(schema.get("properties", {}))


def _unknown(key: str, error: jsonschema.ValidationError) -> str:
    known = _known(error)
    hint = suggestion(key, known) or (f" (known: {', '.join(known)})" if known else "")
    return f"unknown key{hint}"


def _described(error: jsonschema.ValidationError, otherwise: str) -> str:
    schema: Any = error.schema
    return str(schema.get("description", otherwise)) if isinstance(schema, Mapping) else otherwise


def _type_words(types: str | Sequence[str]) -> str:
    return _or([_TYPES.get(name, name) for name in ([types] if isinstance(types, str) else types)])


def _or(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _shown(value: object) -> str:
    """`value` as JSON, clipped. A list or object is shown by its kind: nobody reads a dump of it."""
    if isinstance(value, dict | list):
        return _TYPES["object" if isinstance(value, dict) else "array"]
    if isinstance(value, str) and len(value) > MAX_VALUE:
        value = value[: MAX_VALUE - 1] + "…"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return encodable(text)


def _path(parts: Sequence[str | int]) -> str:
    path = ""
    for part in parts:
        path = f"{path}[{part}]" if isinstance(part, int) else _join(path, part)
    return path


def _join(path: str, key: str) -> str:
    if not key.replace("-", "_").replace(":", "_").isidentifier() or len(key) > MAX_VALUE:
        return f"{path}[{_shown(key)}]"
    return f"{path}.{key}" if path else key


def _line(path: str, problem: str) -> str:
    return f"{path}: {problem}" if path else problem
