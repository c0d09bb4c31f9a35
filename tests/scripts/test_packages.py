"""The wheel and the source distribution: what is in them, and that they work where there is nothing else."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from app import VERSION

ROOT = Path(__file__).parents[2]
DOCUMENTS = "share/doc/sisyphus-client"
CLIP = "testsrc2=size=160x120:rate=25:duration=1 [out0]; sine=duration=1 [out1]"


def build(checkout: Path, output: Path) -> tuple[Path, Path]:
    """Build from a checkout; returns the wheel and the source distribution."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(output)], cwd=checkout, check=True)
    return next(output.glob("*.whl")), next(output.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(ROOT, tmp_path_factory.mktemp("built"))


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_is_complete(built: tuple[Path, Path]) -> None:
    """The wheel has every file of the packages, types and all, and a description that leads nowhere."""
    files = contents(built[0])
    packages = ("app", "child", "ipc", "modules", "server", "supervisor")
    product = [file.relative_to(ROOT) for package in packages for file in (ROOT / package).rglob("*") if file.is_file()]
    metadata = files[f"sisyphus_client-{VERSION}.dist-info/METADATA"].decode()

    assert {str(file) for file in product if "__pycache__" not in file.parts} <= set(files)
    assert {f"{package}/py.typed" for package in packages} <= set(files)
    assert f"sisyphus_client-{VERSION}-py3-none-any.whl[" in metadata
    assert re.findall(r"\]\((?!https?:)", metadata) == []


def test_the_source_distribution_makes_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    """Who has only the source distribution builds what we build."""
    wheel, source = built
    with tarfile.open(source) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Debian 12 has a Python without
        archive.extractall(tmp_path)
    (checkout,) = tmp_path.iterdir()

    assert contents(build(checkout, tmp_path / "dist")[0]) == contents(wheel)


def test_nothing_else_of_a_checkout_is_packed(built: tuple[Path, Path], tmp_path: Path) -> None:
    """The source distribution has the project, and no films, jobs and environments that lie beside it."""
    with tarfile.open(built[1]) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)
        packed = set(archive.getnames())
    (checkout,) = tmp_path.iterdir()
    for name in ("JOB.json", "done/film.mkv", "sisyphus/bin/python"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()

    with tarfile.open(build(checkout, tmp_path / "dist")[1]) as archive:
        assert set(archive.getnames()) == packed
    project = (".ci/run", "README.md", "requirements-dev.lock", "scripts/run", "tests/conftest.py")
    assert {f"{checkout.name}/{name}" for name in project} <= packed


def test_licences() -> None:
    """The page of licences has every package that is installed with the client, with the licence of its metadata."""
    page = (ROOT / "docs/licences.md").read_text()
    locked = re.findall(r"^([\w.-]+)==(?!.*win32)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)

    assert dict(re.findall(r"^\| `(.+)` \| (.+) \|$", page, flags=re.MULTILINE)) == {
        name: licence(importlib.metadata.metadata(name)) for name in locked
    }


def licence(metadata: "importlib.metadata.PackageMetadata") -> str:
    named = [metadata[key] for key in ("License-Expression", "License") if key in metadata]
    classified = [each for each in metadata.get_all("Classifier") or () if each.startswith("License ::")]
    return next(filter(None, named), None) or ", ".join(each.rpartition(" :: ")[2] for each in classified)


def test_the_changelog_has_this_version() -> None:
    """The newest release of the changelog is this one."""
    (newest, *_) = re.findall(r"^## \[(\d[\d.]+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)

    assert newest == VERSION


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that pip has installed the wheel into, and nothing that we have not locked."""
    home = tmp_path_factory.mktemp("installed")
    pip = [home / "bin/python", "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    subprocess.run([*pip, "--require-hashes", "--requirement", ROOT / "requirements.lock"], check=True)
    subprocess.run([*pip, "--no-index", f"{built[0]}[server,notify]"], check=True)  # needs nothing more
    return home


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_works_in_an_empty_environment(installed: Path, tmp_path: Path) -> None:
    """Outside of a checkout, the installed program encodes, serves, knows its manual page, and brings its documents."""

    def call(*command: str | Path) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    program, documents = installed / "bin/sisyphus-client", installed / DOCUMENTS
    (tmp_path / "demo").mkdir()
    call("ffmpeg", "-v", "error", "-f", "lavfi", "-i", CLIP, "-c:v", "mpeg4", "-c:a", "flac", "demo/clip.mkv")
    record = json.loads(call(program, "run", "--json", documents / "examples/encode.json"))
    server = call(installed / "bin/python", "-c", "import server.main, server.notify.apprise as a; print(a.__file__)")

    assert record["completed"]
    assert (tmp_path / "demo/done/clip.mp4").exists()
    assert server.startswith(str(installed))
    assert VERSION in call(installed / "bin/python", "-m", "sisyphus_client", "--version")
    assert (installed / "share/man/man1/sisyphus-client.1").read_text() == call(program, "man")
    for unit in ("sisyphus-client.service", "sisyphus-server.service"):
        assert "ExecStart=/opt/" in (documents / "scripts/systemd" / unit).read_text()
    for page in (documents / "README.md", *documents.glob("docs/*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page}: {target}"
