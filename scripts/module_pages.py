"""Write docs/modules/NAME.md for each bundled module: every key of its data, from its schema, and an example.

python scripts/module_pages.py
"""

import json
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NAMES = ("ffmpeg", "handbrake", "mkvmerge", "mkvextract", "cleanup")
PAGES = ROOT / "docs" / "modules"

_HEAD = """\
# {name}

Every key of the module's data, made from its schema by `scripts/module_pages.py`. [Jobs](../jobs.md#{name}) explains
how they work together. Keys in bold are required. The client refuses others{others}.

A job with it is [examples/jobs/{name}.json](../../examples/jobs/{name}.json):

```json
{example}
```
"""


def make_page(name: str) -> str:
    """Return the page of a module."""
    schema = json.loads((ROOT / f"modules/schema/{name}.json").read_text(encoding="utf-8"))
    example = (ROOT / f"examples/jobs/{name}.json").read_text(encoding="utf-8").rstrip()
    others = "; `options` may have any option of the tool" if "options" in schema["$defs"] else ""
    sections = {"data": schema} | {key: each for key, each in schema["$defs"].items() if "properties" in each}
    return _HEAD.format(name=name, example=example, others=others) + "".join(
        line for title, section in sections.items() for line in _make_section(title, section, sections)
    )


def _make_section(title: str, section: Mapping[str, Any], sections: Collection[str]) -> Iterator[str]:
    yield f"\n## {title}\n\n| key | value | meaning |\n| --- | --- | --- |\n"
    for key, value in section["properties"].items():
        name = f"**`{key}`**" if key in section.get("required", ()) else f"`{key}`"
        yield f"| {name} | {_describe(value, sections)} | {value.get('title', '')} |\n"
    if choices := [each["required"][0] for each in section.get("anyOf", ()) if "required" in each]:
        yield f"\nAt least one of {', '.join(f'`{key}`' for key in choices)} is needed.\n"


def _describe(value: Mapping[str, Any], sections: Collection[str]) -> str:
    """The form of a value, for a person, with links to `sections`."""
    match value:
        case {"$ref": reference}:
            name = reference.rpartition("/")[2]
            words = "text, or a list of texts" if name == "texts" else name.replace("_", " ")
            return f"[{name}](#{name})" if name in sections else words
        case {"enum": values}:
            return ", ".join(f"`{each}`" for each in values)
        case {"anyOf": forms}:
            return " or ".join(_describe(form, sections) for form in forms)
        case {"const": constant}:
            return f"`{json.dumps(constant)}`"
        case {"type": "array", "items": items}:
            return f"list of {_describe(items, sections)}"
        case {"type": str(kind)}:
            return _TYPES.get(kind, kind)
        case {"type": kinds}:
            return " or ".join(_TYPES.get(kind, kind) for kind in kinds)
    return "anything"


_TYPES = {"string": "text", "boolean": "true or false", "integer": "whole number", "null": "null"}


def main() -> int:
    PAGES.mkdir(exist_ok=True)
    for name in NAMES:
        (PAGES / f"{name}.md").write_text(make_page(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
