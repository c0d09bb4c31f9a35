"""The `webhook` module: posts what the tasks before it came to, as JSON, to the address in the operator's settings.

Settings: `url`, and `token`, which is sent as a bearer token. Data: `text`, for people, if one is wanted.
"""

from collections.abc import Iterator

import requests

from app.exceptions import RunError
from modules.base import BaseModule

TIMEOUT = (5, 30)  # seconds to connect, and between two bytes of the answer


class Webhook(BaseModule):
    def find_problems(self) -> Iterator[str]:
        if "url" not in self.settings:
            yield "tool.client.modules.settings has no url for this module"

    def run(self) -> None:
        self.set_start_time()
        tasks = [
            {"module": task.module, "result": task.result, "results": dict(task.results)} for task in self.job.tasks
        ]
        body = {"job_id": self.job.id, "job_title": self.job.title, "text": self.task.get("text", ""), "tasks": tasks}
        token = self.settings.get("token")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer = requests.post(self.settings.url, json=body, headers=headers, timeout=TIMEOUT)
            answer.raise_for_status()
        except requests.RequestException as error:
            raise RunError(message=f"the webhook was not taken: {error}") from error
        self.results["status"] = answer.status_code
        self.report(done=True)
