"""The OpenAPI document is true: schemathesis makes calls of it, good ones and wrong ones."""

from itertools import count
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from tests.server.conftest import make_database
from tests.support.api_server import FULL_BEAT, Api, serving

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]

EXAMPLES = 6
"""Good calls of each kind, and wrong ones."""

KNOWN = {"worker_id": "w", "module": "ffmpeg", "name": "opus"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def test_calls_conform_to_the_document(kind: str, tmp_path: Path) -> None:
    """Nothing that a client can send makes the server fail, or answer otherwise than the document says."""
    with serving(make_database(kind, tmp_path)) as api:
        schema = schemathesis.openapi.from_url(f"{api.url}/doc/openapi.json").exclude(path="/events")  # never ends
        operations = [result.ok() for result in schema.get_all_operations()]
        for operation in operations:
            api("POST", "/workers/w", FULL_BEAT)
            api("POST", "/data/ffmpeg/opus", {"x": [1]})
            api.submit()
            try_out(api, operation, GenerationMode.POSITIVE)
            if operation.body or operation.query:
                try_out(api, operation, GenerationMode.NEGATIVE)

    assert len(operations) > 25


def try_out(api: Api, operation: Any, mode: GenerationMode) -> None:
    """Make some calls of one kind, for what is unknown and for what is there, and for jobs in each state."""
    numbers = count()

    @seed(1)
    @settings(
        max_examples=EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def call(case: Any) -> None:
        number = next(numbers)
        if number % 4:  # else names that nobody knows
            known = KNOWN | ({"job_id": make_job(api, number % 4 - 1)} if "job_id" in case.path_parameters else {})
            case.path_parameters.update({name: known[name] for name in case.path_parameters})
        if isinstance(case.query, dict):
            case.query.pop("wait", None)
        case.call_and_validate(session=api.session, checks=CHECKS, timeout=60)

    call()


def make_job(api: Api, state: int) -> str:
    """Submit a job, which is queued, running or completed then."""
    job_id = api.submit()
    if state:
        api("PATCH", f"/jobs/{job_id}", {"position": "head"})
        api.poll()
    if state > 1:
        api("PATCH", f"/jobs/{job_id}/completed", {"failed": False, "info": {}})
    return job_id
