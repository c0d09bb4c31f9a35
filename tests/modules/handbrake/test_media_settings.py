"""Settings of sound that HandBrakeCLI does not take, of which only its log tells."""

from pathlib import Path

import pytest

from tests.modules.handbrake.scene import carry_out, task

pytestmark = pytest.mark.tools

IGNORED = {
    "mixdown: HandBrakeCLI knows no 'sterio', and audio track 2 has Mono": {"mixdown": ["mono", "sterio"]},
    "a setting is ignored: work: track 1, dithering not supported by codec": {"adither": "triangular"},
    "": {"mixdown": ["Mono", "none"]},
}


@pytest.mark.parametrize("line", IGNORED)
def test_ignored_sound_settings(line: str, film: Path, tmp_path: Path) -> None:
    """A setting that is not taken is a warning; the names that HandBrakeCLI shows are taken as well as those in its
    help."""
    tracks = [1, 2] if "mixdown" in IGNORED[line] else [1]
    audio = {"audio": tracks, "aencoder": "av_aac", **IGNORED[line]}

    warnings = carry_out(task(film, tmp_path / "out.mkv", audio=audio)).sisyphus_context.warnings

    assert list(warnings) == ([line] if line else [])
