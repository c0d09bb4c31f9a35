"""The `loudness` module: brings the sound of `source` to a loudness by EBU R128, and writes it to `target`.

The first audio stream is measured, and then encoded with what was measured; the picture is copied. If it is within
`tolerance` (1 LU) of `lufs` (-23) already, there is nothing to do, and the rest of the job is skipped.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from app.exceptions import RunError, Skipped
from modules import checks, tool
from modules.base import BaseModule
from modules.output import Output

PATH = {"type": "string", "minLength": 1, "format": "argument"}
NUMBER = {"type": "number"}


class Loudness(BaseModule):
    schema: ClassVar[Mapping[str, Any]] = {
        "properties": {"source": PATH, "target": PATH, "lufs": NUMBER, "tolerance": NUMBER},
        "required": ["source", "target"],
        "additionalProperties": False,
    }
    tools = ("ffmpeg", "ffprobe")
    cleanup_on_failure = True

    def inputs(self) -> list[str]:
        return [self.task.source]

    def outputs(self) -> list[str]:
        return [self.task.target]

    def find_problems(self) -> Iterator[str]:
        yield from checks.source_problems(self, "source", self.task.source)
        yield from checks.target_problems(self, "target", self.task.target, overwrite=self.resumed)

    def run(self) -> None:
        self.set_start_time()
        aim = float(self.task.get("lufs", -23))
        with self.phase("measuring", weight=30):
            measured = self._measure(aim)
        self.results["lufs"] = before = float(measured["input_i"])
        if abs(before - aim) <= self.task.get("tolerance", 1):
            raise Skipped(f"its loudness is {before} LUFS already")
        checks.require_space(self, {self.task.target: checks.size_of([self.task.source])})
        known = ":".join(f"measured_{key}={measured[f'input_{key.lower()}']}" for key in ("I", "LRA", "TP", "thresh"))
        with self.phase("encoding", weight=70), self._output() as output:
            maps = ["-map", "0:V?", "-map", "0:a:0", "-c", "copy", "-c:a", "aac", "-ar", "48000"]
            self._ffmpeg([*maps, "-af", f"loudnorm=I={aim}:{known}:linear=true", "-y", f"file:{output.temporary}"])
            output.commit()
        self.report(done=True)

    def cleanup(self) -> None:
        self._output().discard()

    def _output(self) -> Output:
        return Output(self.task.target, overwrite=self.resumed)

    def _measure(self, aim: float) -> dict[str, str]:
        finished = self._ffmpeg(["-map", "0:a:0", "-af", f"loudnorm=I={aim}:print_format=json", "-f", "null", "-"])
        text = "\n".join(finished.stderr)
        try:
            measured: dict[str, str] = json.loads(text[text.rindex("{") : text.rindex("}") + 1])
        except ValueError as error:
            raise RunError(message=f"{self.task.source}: ffmpeg measured nothing") from error
        if "inf" in measured["input_i"]:
            raise RunError(message=f"{self.task.source}: is silent")
        return measured

    def _ffmpeg(self, options: list[str]) -> tool.Finished:
        seconds = self._seconds()

        def on_line(line: str) -> None:
            key, _, value = line.partition("=")
            if key == "out_time_us" and value.isdigit() and seconds:
                self.report(int(value) / 1e6 / seconds * 100)

        argv = ["ffmpeg", "-nostdin", "-nostats", "-progress", "pipe:1", "-i", f"file:{self.task.source}", *options]
        return tool.run(argv, on_line=on_line).check()

    def _seconds(self) -> float:
        argv = ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"]
        text = tool.capture([*argv, f"file:{self.task.source}"]).check().stdout.decode().strip()
        return float(text) if text.replace(".", "", 1).isdigit() else 0.0
