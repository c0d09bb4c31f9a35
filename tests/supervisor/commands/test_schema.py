"""`schema`: the JSON schema of a job file, as an editor uses it."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from modules import schema as task_schema
from supervisor.commands.schema import job_schema
from supervisor.jobs.model import JobError, read_job
from tests.cases.tasks import JOBS
from tests.modules.test_schema import BASES, PROBLEMS
from tests.support.supervised import TOOLS, Supervised

ROOT = next(path for path in Path(__file__).parents if (path / "pyproject.toml").is_file())

Printed = Draft202012Validator


@pytest.fixture(scope="session")
def bundled() -> Printed:
    """The schema of the bundled modules alone."""
    names = ("ffmpeg", "handbrake", "mkvmerge", "mkvextract", "cleanup")
    made = job_schema({name: task_schema.load(name) for name in names})
    Draft202012Validator.check_schema(made)
    return Draft202012Validator(made)


def is_well_formed(document: Any) -> bool:
    """What `validate` makes of the shape alone, but for the formats of ours, which no editor knows."""
    try:
        job = read_job(document, BASES, "title")
    except JobError:
        return False
    return all(Draft202012Validator(task_schema.load(task.module)).is_valid(task.data) for task in job.tasks)


def test_command(supervised: Supervised, tmp_path: Path) -> None:
    """The schema has the enabled modules, an operator's own with the schema beside it; a file may name it for an
    editor. It is a sound schema."""
    (tmp_path / "own.py").write_text("from modules.base import BaseModule\n\n\nclass Own(BaseModule):\n    pass\n")
    own = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "required": ["a/b"]}
    own |= {"properties": {"a/b": {"$ref": "#/$defs/x~1y"}}, "$defs": {"x/y": {"type": "integer"}}}
    (tmp_path / "own.schema.json").write_text(json.dumps(own))
    supervised.configure(modules=TOOLS | {"own": "own.Own", '"odd ~/name"': "own.Own"}, paths=(str(tmp_path),))
    done = supervised.command("schema")
    schema = json.loads(done.stdout)
    Draft202012Validator.check_schema(schema)
    accepts = Draft202012Validator(schema).is_valid

    def tasks(*made: dict[str, Any]) -> dict[str, Any]:
        return {"$schema": "./job.schema.json", "job_title": "x", "tasks": list(made)}

    assert done.returncode == 0, done.stderr
    assert "own" in schema["$defs"]["task"]["properties"]["module"]["enum"]
    assert accepts(tasks({"module": "benign"}, {"module": "hostile", "data": {"anything": 1}}))
    for name in ("own", "odd ~/name"):
        assert accepts(tasks({"module": name, "data": {"a/b": 1}}))
        assert not accepts(tasks({"module": name, "data": {"a/b": "1"}}))
        assert not accepts(tasks({"module": name}))
    assert not accepts(tasks({"module": "another"}))
    assert supervised.run(tasks({"module": "benign"})).returncode == 0


def test_a_module_that_cannot_be_imported(supervised: Supervised) -> None:
    """A schema without one of the modules would refuse good jobs: there is none."""
    supervised.configure(modules={"broken": "tests.nowhere.Broken"})
    done = supervised.command("schema")

    assert (done.returncode, done.stdout) == (1, "")
    assert "module 'broken' (tests.nowhere.Broken) cannot be imported" in done.stderr


FILES = sorted([*JOBS.values(), *(ROOT / "examples").glob("*.json")])


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_job_files(file: Path, bundled: Printed) -> None:
    """It takes the job files of the examples and the tests, unless `validate` refuses their shape."""
    document = json.loads(file.read_text())

    assert bundled.is_valid(document) == is_well_formed(document)


DATA = [(name, BASES[name] | change) for name, rows in PROBLEMS.items() for change, _ in rows]
JOB: dict[str, Any] = {"job_title": "x", "tasks": [{"module": "cleanup", "data": {"delete": ["a"]}}]}
TASK: dict[str, Any] = JOB["tasks"][0]
SHAPES = [
    JOB,
    *({"tasks": JOB["tasks"]} | more for more in ({}, {"job_name": "x"}, {"job_title": ""}, {"job_title": 1})),
    *(JOB | more for more in ({"job_id": "a-1"}, {"job_id": "a b"}, {"added": "x"}, {"titel": "x"}, {"tasks": []})),
    *(JOB | {"tasks": tasks} for tasks in ({}, None, [1], [{}], [TASK] * 1000, [TASK] * 1001)),
    *(
        JOB | {"tasks": [TASK | more]}
        for more in (
            {"when": "always"},
            {"when": "never"},
            {"requires": ["gpu"]},
            {"requires": "gpu"},
            {"module": "none"},
            {"module": "ffmpeg"},
            {"data": []},
            {"data": {}},
            {"wehn": "always"},
        )
    ),
    *({"job_title": "x", "tasks": [{"module": name, "data": data}]} for name, data in BASES.items()),
    *(
        {
            "job_title": "x",
            "tasks": [{"module": name, "data": {key: each for key, each in data.items() if each is not None}}],
        }
        for name, data in DATA
    ),
]


def test_shapes(bundled: Printed) -> None:
    """It refuses what `validate` refuses by its shape, and nothing else."""
    wrong = [each for each in SHAPES if bundled.is_valid(each) != is_well_formed(each)]

    assert wrong == []
    assert len(BASES) < sum(map(bundled.is_valid, SHAPES)) < len(SHAPES) / 2
