"""The `refresh` module: tells a Jellyfin server that files have changed, so that its library shows them at once.

Settings: `url` of the server, and `token`, an API key of it. Data: `paths`, as the server sees them.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import requests

from app.exceptions import RunError
from modules.base import BaseModule

TIMEOUT = (5, 30)  # seconds to connect, and between two bytes of the answer


class Refresh(BaseModule):
    schema: ClassVar[Mapping[str, Any]] = {
        "properties": {"paths": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}}},
        "required": ["paths"],
        "additionalProperties": False,
    }

    def find_problems(self) -> Iterator[str]:
        for key in ("url", "token"):
            if key not in self.settings:
                yield f"tool.client.modules.settings has no {key} for this module"

    def run(self) -> None:
        self.set_start_time()
        updates = [{"Path": path, "UpdateType": "Modified"} for path in self.task.paths]
        headers = {"Authorization": f'MediaBrowser Token="{self.settings.token}"'}
        url = f"{self.settings.url.rstrip('/')}/Library/Media/Updated"
        try:
            requests.post(url, json={"Updates": updates}, headers=headers, timeout=TIMEOUT).raise_for_status()
        except requests.RequestException as error:
            raise RunError(message=f"the library is not refreshed: {error}") from error
        self.report(done=True)
