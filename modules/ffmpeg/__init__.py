"""The `ffmpeg` module: encode with ffmpeg, and believe the result only after looking at it.

ffmpeg's exit status does not say whether the output is whole: a source that ends in the middle gives 0 and a short
file. So the output is written under a temporary name, and gets its own only when ffprobe finds in it the streams and
the duration that `expect` predicts.
"""

import contextlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from box import Box
from loguru import logger

from app.exceptions import RunError, Unfit, ValidationError
from modules import checks, media, tool
from modules import schema as task_schema
from modules.command import Options
from modules.containers import contradiction
from modules.ffmpeg import encoders, files, inputs, known, streams
from modules.ffmpeg.encode import encode
from modules.ffmpeg.expect import certain_length, expect_output, frame_limit, goes_on, is_empty_text, used_shares
from modules.ffmpeg.options import (
    IMAGES,
    MANY_FILES,
    EncodeTask,
    fetch_option_set,
    ffmpeg_command,
    names,
    phase,
    places,
    probe_options,
    source_argument,
    unquoted,
    unquoted_options,
    written,
)
from modules.media import ExpectedOutput
from modules.output import Output, WritingModule
from modules.selection import in_words, is_in_words
from modules.sources import Probes, Source, Watch

_CODECS = names("c codec vcodec acodec scodec")

_TIMES = names("ss t to sseof stream_loop accurate_seek")
"""Input options without which ffprobe reads the source just as well."""


class Ffmpeg(WritingModule):
    """Encodes the task's sources into one output file."""

    schema = task_schema.load("ffmpeg")
    tools = ("ffmpeg", "ffprobe")

    def __init__(self, task: Mapping[str, Any]) -> None:
        super().__init__(task)
        self.task = Box(unquoted(task, self.warn))
        self._sets: dict[str, Options] = {}
        self._probes = Probes()
        self._warned: set[str] = set()

    def outputs(self) -> list[str]:
        """The output, and the files that the options write. Those of option sets are not known yet."""
        names = [] if self._is_discarded() else [self.task["output_file"]]
        with contextlib.suppress(AttributeError, KeyError, TypeError):  # nobody has validated the data yet
            names += [name for _, name, _ in written(self._encoding())]
        return names

    def inputs(self) -> list[str]:
        return [name for name, _ in self._encoding().sources]

    def plan(self) -> list[str]:
        """The command line that `run` would use, and the renaming that follows. Fetches the option sets.

        Raises:
            ValidationError: An option set cannot be fetched.
        """
        self._need_sets(ValidationError)
        outputs = self._outputs()
        task = self._encoding(self._probe_settled()).settled()
        words = [each for each in task.data["source_maps"] if is_in_words(each)]
        notes = [f"# of sources[{each['source']}], which is not there yet: {in_words(each)}" for each in words]
        return [*notes, shlex.join(self._argv(task, outputs)), *(each.commit_command() for each in outputs.values())]

    def validate(self) -> None:
        try:
            with contextlib.suppress(Exception):  # nobody has looked at the data yet, and ffprobe may be missing
                self._probes.begin(list(self._settled().values()))
            super().validate()
        finally:
            self._probes.stop()

    def find_problems(self) -> Iterator[str]:
        """Check files first, then ask the server, then ffmpeg and ffprobe."""
        are_here = not any(map(tool.missing, self.tools))
        task = self._encoding()  # the sets are fetched into it
        yield from checks.chain_checks(
            self._source_problems(task),
            self._map_problems(task),
            self._fetch_sets(),
            self._option_problems(task),
            self._output_problems(task),
            inputs.content_problems(self, task, self._can_look),
            self._encoder_problems(task) if are_here else (),
            self._stream_problems(task) if are_here else (),
        )

    @classmethod
    def ask_tools(cls) -> None:
        known.table()
        encoders.listed()

    @classmethod
    def probe_encoders(cls) -> Iterator[tuple[str, str]]:
        return encoders.try_all()

    def run(self) -> None:
        self.set_start_time()
        for name in self.tools:
            tool.require(name, RunError)
        self._need_sets(RunError)
        task = self._encoding()
        contents = inputs.content_problems(self, task, os.path.isfile)
        if problems := [*contents, *self._file_problems(task)]:
            raise RunError(problems=problems)
        with Watch(self, partial(inputs.read_files, task)) as watch:
            watch.warn_of_joined()
            task = self._encoding(dict(enumerate(self._probes.answers(list(map(self._probed, task.sources))))))
            if problems := list(self._mapping_problems(task)):
                raise RunError(problems=problems)
            expected = expect_output(task)
            if self._is_discarded() or not self._was_written(expected):
                sizes = {} if self._is_discarded() else used_shares(task, expected.duration)
                checks.require_space(self, {self.task["output_file"]: checks.size_of(sizes)} if sizes else {})
                self._write(task, expected, watch)
        self.report(done=True)

    def _write(self, task: EncodeTask, expected: ExpectedOutput, watch: Watch) -> None:
        outputs = self._outputs()
        argv = self._argv(task.settled(), outputs)
        files.make_log_directory(argv)
        with contextlib.ExitStack() as stack:
            for output in outputs.values():
                stack.enter_context(output)
            encoded = encode(argv, expected, phase(task), self.report, self.warn)
            if outputs:
                self.report(info={"phase": "checking"})
            for output in outputs.values():
                if problem := output.find_no_space():  # ffmpeg 5.1 exits with 0 if only the last bytes have no room
                    raise RunError(message=problem)
            inputs.require_read(task, encoded.log)
            if not self._is_discarded():
                with media.quoting(["nothing was encoded: see ss, t, to, frames"] if encoded.is_empty else []):
                    self._verify(task, expected, outputs[self.task["output_file"]].temporary)
            for warning in inputs.damage_warnings(task, encoded):
                self.warn(warning)
            watch.require_unchanged()
            for name, output in reversed(outputs.items()):  # an attempt that finds the output is not repeated
                output.commit()
                logger.info("Wrote {}", name)

    def _verify(self, task: EncodeTask, expected: ExpectedOutput, temporary: str) -> None:
        if is_empty_text(task, temporary):
            self.warn(f"{self.task['output_file']} is empty: there are no subtitles in what was asked for")
        else:
            media.verify(temporary, expected, partial(goes_on, task, self.will_exist))

    def _possible_outputs(self) -> list[Output]:
        return list(self._outputs().values())

    def _was_written(self, expected: ExpectedOutput) -> bool:
        """True if an earlier attempt has written the output: it got its name only when it was whole.

        Raises:
            RunError: The file of that name is not the output.
        """
        output = self._outputs()[self.task["output_file"]]
        if not self.resumed or self.task.to_dict().get("overwrite", False) or not os.path.lexists(output.target):
            return False
        try:
            media.verify(output.target, expected)
        except RunError as error:
            raise RunError(message=f"{output.target}: exists, and is not to be overwritten: {error.message}") from error
        self.warn(f"{output.target} is there and whole: taken for written by an earlier attempt")
        return True

    def _is_discarded(self) -> bool:
        """True if the output is /dev/null: the first of two passes only writes a log for the second."""
        return bool(os.path.realpath(self.task["output_file"]) == os.devnull)

    def _outputs(self) -> dict[str, Output]:
        """All files to be written, by their names: the output comes first, if it is not discarded."""
        overwrite = self.task.to_dict().get("overwrite", False)
        outputs: dict[str, Output] = {}
        if not self._is_discarded():
            outputs[self.task["output_file"]] = Output(self.task["output_file"], overwrite=overwrite, warn=self.warn)
        for _, name, is_log in written(self._encoding()):
            if not is_log:  # an encoder writes a log under a temporary name itself
                outputs[name] = Output(name, overwrite=overwrite or self.resumed, warn=self.warn)
        return outputs

    def _encoding(self, probes: Mapping[int, Mapping[str, Any]] | None = None) -> EncodeTask:
        return EncodeTask(self.task.to_dict(), self._sets, probes or {})

    def _argv(self, task: EncodeTask, outputs: Mapping[str, Output]) -> list[str]:
        target = os.devnull if self._is_discarded() else outputs[self.task["output_file"]].temporary
        names = {name: output.temporary for name, output in outputs.items()}
        argv = ffmpeg_command(task, target, self.will_exist, lambda name: names.get(name, name))
        if "%" in target and _is_picture(task):
            argv[-1:-1] = ["-update", "1"]  # else ffmpeg puts a number in the place of a %d
        return argv

    def _source_problems(self, task: EncodeTask) -> Iterator[str]:
        for index, (name, options) in enumerate(task.sources):
            yield from inputs.file_problems(self, f"sources[{index}]", name, options)
        for where, name in _read_names(task):
            if checks.same_file(name, task.data["output_file"]):
                yield f"output_file: {name} is also {where}"

    def _map_problems(self, task: EncodeTask) -> Iterator[str]:
        count = len(task.sources)
        for index, entry in enumerate(task.data["source_maps"]):
            if entry["source"] >= count:
                yield f"source_maps[{index}].source: {entry['source']}, but there are only sources 0 to {count - 1}"

    def _can_look(self, name: str) -> bool:
        """True if a source is there by now, and stays as it is until the task runs."""
        return checks.is_settled(self, name) and os.path.isfile(name) and os.access(name, os.R_OK)

    def _option_problems(self, task: EncodeTask) -> Iterator[str]:
        """Options that ffmpeg does not know or would misread, and files that options write."""
        for where, place, options in places(task):
            yield from known.option_problems(where, options, place)
            if "t" not in options and media.clock(options.get("to")) <= media.clock(options.get("ss")):
                yield f"{where}.to: {options['to']} is not after ss {options['ss']}"
        yield from self._file_problems(task)
        overwrite = task.data.get("overwrite", False) or self.resumed
        for where, name, _ in written(task):
            yield from checks.target_problems(self, where, name, overwrite=overwrite)
            for other, entry in [("output_file", task.data["output_file"]), *_read_names(task)]:
                if checks.same_file(name, entry):
                    yield f"{where}: would write {name}, which is also {other}"

    def _file_problems(self, task: EncodeTask) -> Iterator[str]:
        for where, _, options in places(task):
            yield from (f"{where}.{key}: {problem}" for key, problem in files.unnamed_problems(options))

    def _output_problems(self, task: EncodeTask) -> Iterator[str]:
        name = task.data["output_file"]
        if self._is_discarded():
            return
        overwrite = task.data.get("overwrite", False) or self.resumed
        yield from checks.target_problems(self, "output_file", name, overwrite=overwrite)
        for line in filter(None, (contradiction(name, container) for container in sorted(task.formats))):
            self.warn(f"output_file: {line}")
        is_numbered = re.search(r"%\d*d", name, re.ASCII) and not _is_picture(task)
        has_list = os.path.splitext(name)[1].lower() in {".m3u8", ".mpd"}
        if has_list or task.formats & MANY_FILES or (is_numbered and _is_image(task)):
            yield f"output_file: {name}: ffmpeg writes several files, which the ffmpeg module does not support"

    def _encoder_problems(self, task: EncodeTask) -> Iterator[str]:
        for where, place, options in places(task):
            for key, value in options.items() if place != "source" else ():
                if key.split(":")[0] in _CODECS and isinstance(value, str) and (why := encoders.find_problem(value)):
                    yield Unfit(f"{where}.{key}: {why}")
            for key in known.ignored_by_copy(options) if place == "stream" else ():
                self.warn(f"{where}.{key}: is ignored, because the stream is copied")
            for key in known.clipped(options):
                self.warn(f"{where}.{key}: {options[key]} is more than x264 has: it takes 51, the worst picture")

    def _stream_problems(self, task: EncodeTask) -> Iterator[str]:
        """Mapped streams that their source lacks, and sources that cannot be read or end before the encode starts."""
        probes = self._probe_settled()
        for index, found in probes.items():
            name, options = task.sources[index]
            if not found and not set(options) - _TIMES:
                yield f"sources[{index}]: {name}: is no media that ffprobe can read"
            length = certain_length(found)
            if length is not None and "stream_loop" not in options and media.clock(options.get("ss")) >= length:
                yield f"sources[{index}]: {name}: ss {options['ss']} is after its end ({length:.1f} s)"
        yield from self._mapping_problems(self._encoding(probes))

    def _mapping_problems(self, task: EncodeTask) -> Iterator[str]:
        """Maps that select nothing, or a cover for a film, as far as the sources are known."""
        problems = list(streams.source_problems(task))
        yield from problems
        for problem, is_error in streams.output_problems(task) if not problems else ():
            if is_error:
                yield problem
            else:
                self._warn_once(problem)

    def _warn_once(self, message: str) -> None:
        """Warn of what the validation may have found already."""
        if message not in self._warned:
            self._warned.add(message)
            self.warn(message)

    def _need_sets(self, error: type[ValidationError | RunError]) -> None:
        if problems := list(self._fetch_sets()):
            raise error(problems=problems)

    def _fetch_sets(self) -> Iterator[str]:
        """Fetch the option sets that have not been fetched yet. Yields a problem for each that cannot be."""
        for index, entry in enumerate(self.task.to_dict()["output_maps"]):
            name = entry.get("option_set")
            if name is None or name in self._sets:
                continue
            try:
                where = f"output_maps[{index}].option_set: option set {name!r}: options"
                self._sets[name] = unquoted_options(fetch_option_set(name), where, self.warn)
            except ValidationError as error:
                yield from (f"output_maps[{index}].option_set: {problem}" for problem in error.problems)

    def _settled(self) -> dict[int, Source]:
        """The sources that are there already, by number."""
        sources = enumerate(self._encoding().sources)
        return {index: self._probed(each) for index, each in sources if self._can_look(each[0])}

    def _probed(self, source: tuple[str, Options]) -> Source:
        name, options = source
        return name, source_argument(name, self.will_exist), tuple(probe_options(options))

    def _probe_settled(self) -> dict[int, Mapping[str, Any]]:
        """ffprobe's answers for the sources that are there already, by number."""
        seen = self._settled()
        return dict(zip(seen, self._probes.answers(list(seen.values())), strict=True))


def _read_names(task: EncodeTask) -> Iterator[tuple[str, str]]:
    """The sources and their files: where the task names each, and its name."""
    for index, (name, options) in enumerate(task.sources):
        yield f"sources[{index}]", name
        yield from (
            (f"a file of sources[{index}]", each) for each in inputs.source_files(name, options) if each != name
        )


def _is_picture(task: EncodeTask) -> bool:
    """True if the output is a single picture, whose name is no pattern for numbers."""
    return _is_image(task) and frame_limit(task.outputs) == 1


def _is_image(task: EncodeTask) -> bool:
    extension = os.path.splitext(task.data["output_file"])[1][1:].lower()
    return "image2" in task.formats if task.formats else extension in IMAGES
