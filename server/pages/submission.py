"""`POST /farm/check`: what is wrong with a job file, before it is submitted.

The server knows the form of a job and what live workers can do. What is in a task's data, only a worker can judge.
"""

import json
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError

from app.formats import STRICT_NUMBERS, refuse_duplicates
from server.job_routes import why_waiting
from server.models import NewJobBody
from server.services import Served, Services
from server.storage.needs import Need
from server.storage.tables import to_text
from server.transport import Json, StrictRoute, decode, in_words

submission = APIRouter(prefix="/farm", route_class=StrictRoute, include_in_schema=False)

FINE = ("waiting for a free worker", "the queue is disabled", "every worker that can do it is")
"""How the reasons begin for which jobs wait that will be done some time."""


@submission.post("/check")
async def check(request: Request, served: Served, title: str = "") -> Response:
    """Return what is wrong with a job file, what may keep it waiting, and the text to submit.

    `title` is for a job without one. The text is not the job itself: JavaScript would round large numbers.
    """
    return Json(await run_in_threadpool(_check, served, await request.body(), title))


def _check(services: Services, body: bytes, title: str) -> dict[str, Any]:
    try:
        document = _decode(body)
    except ValueError as error:
        return {"problems": [str(error)], "warnings": []}
    if not isinstance(document, dict):
        return {"problems": ["The file does not hold an object: a job begins with {."], "warnings": []}
    document.setdefault("job_title", title)
    document.pop("$schema", None)  # for editors
    try:
        job = NewJobBody.model_validate(document)
    except ValidationError as error:
        problems = [in_words([problem | {"loc": ("body", *problem["loc"])}]) for problem in error.errors()]
        return {"problems": problems, "warnings": []}
    problems = [] if job.tasks else ["tasks: there is no task"]
    why = why_waiting(services, Need(job.modules, job.tags))
    warnings = [] if why.startswith(FINE) else [f"It will wait, for now: {why}."]
    modules = [task.module for task in job.tasks]
    text = to_text(document)
    return {"title": job.job_title, "modules": modules, "text": text, "problems": problems, "warnings": warnings}


def _decode(body: bytes) -> Any:
    """Decode a job file. A `ValueError` says where it is not JSON."""
    try:
        document = json.loads(body, **STRICT_NUMBERS, object_pairs_hook=refuse_duplicates)
        decode(json.dumps(document).encode())  # the bounds of every call
    except json.JSONDecodeError as error:
        raise ValueError(f"Line {error.lineno}, column {error.colno}: this is not JSON: {error.msg}.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"Byte {error.start}: this is not UTF-8.") from None
    except RecursionError:
        raise ValueError("It is nested too deeply.") from None
    except HTTPException as error:
        raise ValueError(error.detail) from None
    except ValueError as error:  # of a constant or a key, in words for the middle of a sentence
        words = str(error)
        raise ValueError(f"{words[0].upper()}{words[1:]}.") from None
    return document
