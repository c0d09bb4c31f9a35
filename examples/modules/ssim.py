"""The `ssim` module: compares an encode with its source, and fails if they differ too much.

Data: `source`, `encode`, and `least`, the least structural similarity (0 to 1) that is good enough.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from app.exceptions import RunError
from modules import tool
from modules.base import BaseModule
from modules.checks import source_problems

PATH = {"type": "string", "minLength": 1, "format": "argument"}


class Ssim(BaseModule):
    schema: ClassVar[Mapping[str, Any]] = {
        "properties": {"source": PATH, "encode": PATH, "least": {"type": "number", "minimum": 0, "maximum": 1}},
        "required": ["source", "encode"],
        "additionalProperties": False,
    }
    tools = ("ffmpeg",)

    def inputs(self) -> list[str]:
        return [self.task.source, self.task.encode]

    def find_problems(self) -> Iterator[str]:
        yield from source_problems(self, "source", self.task.source)
        yield from source_problems(self, "encode", self.task.encode)

    def run(self) -> None:
        self.set_start_time()
        argv = ["ffmpeg", "-nostdin", "-nostats", "-i", f"file:{self.task.encode}", "-i", f"file:{self.task.source}"]
        finished = tool.run([*argv, "-lavfi", "[0:V:0][1:V:0]ssim", "-f", "null", "-"]).check()
        found = re.search(r"SSIM .*All:([\d.]+)", "\n".join(finished.stderr))
        if not found:
            raise finished.error("ffmpeg compared no picture")
        self.results["ssim"] = ssim = float(found[1])
        if ssim < self.task.get("least", 0.95):
            raise RunError(message=f"{self.task.encode} is not close enough to its source: its SSIM is {ssim}")
        self.report(done=True)
