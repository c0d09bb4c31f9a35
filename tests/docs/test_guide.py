"""The module guide holds to the letter: what is written after it works from a file without a change."""

import json
from pathlib import Path

import pytest

from tests.support.exchanges import serving
from tests.support.supervised import Supervised, job

SNIPPETS = ["MyCustomModule", "CoolCustomModule", "ForgetsTheStartTime", "UsesOldHeartbeatNames", "NotDerived"]

UNUSUAL = ["ManyHeartbeats", "NamesOfItsOwn", "ForksWorkers", "WarnsWithoutItsBase"]


def use(supervised: Supervised, source: str, target: str = "modules.cool.Cool") -> None:
    """Enable a module from a directory of its own as `cool`."""
    (supervised.directory / "cool.py").write_text(f"from modules.base import BaseModule\n{source}")
    supervised.configure(modules={"cool": target}, paths=(str(supervised.directory),))


@pytest.mark.parametrize("name", [*SNIPPETS, *UNUSUAL])
def test_module_works(supervised: Supervised, logged: list[str], name: str) -> None:
    """A module as the guide writes it completes, and so does one that does what the guide does not forbid."""
    supervised.configure(modules={"cool": f"tests.guide.{name}"})

    (verdict,) = supervised.verdicts(job(*[("cool", {"key": {"nested": [1]}})] * 5))

    assert verdict.failure is None
    assert "secret" not in str(verdict.info)
    assert not [line for line in logged if "Traceback" in line]


@pytest.mark.parametrize(
    ("name", "error", "headline"),
    [
        ("FailsToInitialize", "InitializationError", "Could not initialize task: Could not build additional pylons."),
        (
            "FailsToValidate",
            "ValidationError",
            "Could not validate task data: Your data is bad and you should feel bad.",
        ),
        (
            "FailsToRun",
            "RunError",
            "Failed to run task: Something bad happened, but on a side-note: let me tell you about my poetry...",
        ),
        (
            "FailsToCleanUp",
            "CleanupError",
            "Failed to cleanup task: Couldn't delete a temporary file and now it's your problem.",
        ),
        ("RaisesItsOwnClass", "RunError", "Failed to run task: 41"),
    ],
)
def test_error_is_the_jobs(supervised: Supervised, name: str, error: str, headline: str) -> None:
    """Each of the four errors, raised as in the guide, or of a class derived from one, is the job's."""
    supervised.configure(modules={"cool": f"tests.guide.{name}"})

    (verdict,) = supervised.verdicts(job(("cool", {})))

    assert verdict.info["message"] == headline
    assert (verdict.info["error"]["type"], verdict.info["error"]["reason"]) == (error, "exception")
    assert headline.endswith(f": {verdict.info['error']['message']}")


def test_spawned_workers_find_their_module(supervised: Supervised) -> None:
    """A module from a directory of its own may use multiprocessing with spawn."""
    use(
        supervised,
        "import multiprocessing\n"
        "def double(x):\n    return 2 * x\n"
        "class Cool(BaseModule):\n    def run(self):\n"
        "        with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "            assert pool.map(double, [1]) == [2]\n",
    )

    (verdict,) = supervised.verdicts(job(("cool", {})))

    assert verdict.failure is None


def test_what_a_module_left_open_is_written(supervised: Supervised, tmp_path: Path) -> None:
    """Files that a module has not closed, and what it registered for the end, are as after an interpreter's end."""
    use(
        supervised,
        "import atexit\nkept = []\n"
        "class Cool(BaseModule):\n    def run(self):\n"
        "        kept.append(open(self.task.out, 'w'))\n        kept[0].write('text')\n"
        "        atexit.register(open, self.task.out + '2', 'w')\n",
    )

    (verdict,) = supervised.verdicts(job(("cool", {"out": str(tmp_path / "out")})))

    assert verdict.failure is None
    assert (tmp_path / "out").read_text() == "text"
    assert (tmp_path / "out2").exists()


@pytest.mark.parametrize("target", ["modules.cool.CoolModule", "app.modules.cool.CoolModule", "cool.CoolModule"])
def test_module_in_a_directory_of_its_own(supervised: Supervised, tmp_path: Path, target: str) -> None:
    """A file in a directory of [tool.client.modules] paths is found under each of the names the field uses."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "cool.py").write_text(
        "import app.modules.base\nimport modules.base\nfrom app.modules.base import BaseModule\n"
        "assert BaseModule is modules.base.BaseModule\n"
        "class CoolModule(BaseModule):\n    pass\n"
    )
    supervised.configure(modules={"cool": target}, paths=("mine",))

    (verdict,) = supervised.verdicts(job(("cool", {})))

    assert verdict.failure is None


def test_alias_gives_the_same_modules() -> None:
    """`app.modules.NAME` and `modules.NAME` are one module, and what is in neither is an ordinary ImportError."""
    import app.modules.base
    from app.modules.cleanup import Cleanup

    import modules.base
    from modules.cleanup import Cleanup as Same

    assert app.modules.base is modules.base
    assert Cleanup is Same
    with pytest.raises(ModuleNotFoundError):
        import app.modules.spam


def test_server_side_data(supervised: Supervised, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module fetches data from the API server and pushes some back, with requests and Config alone."""
    supervised.configure(modules={"cool": "tests.guide.UsesServerSideData"})
    path = "/data/ffmpeg/x265-veryfast"
    with serving() as server:
        server.kept[path] = {"old": 1}
        monkeypatch.setenv("API_URL", server.url)
        done = supervised.run(job(("cool", {"out": str(tmp_path / "out")})))

    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out").read_text())["old"] == 1
    assert server.kept[path] == {"options": {"codec": "libx265", "crf": 19, "preset": "veryfast"}}


BESIDE = "class Cool(BaseModule):\n    pass\nclass Same(Cool):\n    pass\n"


@pytest.mark.parametrize("name", ["Cool", "Same"])
def test_schema_beside_the_module(supervised: Supervised, tmp_path: Path, name: str) -> None:
    """A JSON schema in a file of its own is picked up by the base class."""
    use(supervised, BESIDE, f"modules.cool.{name}")
    schema = {"properties": {"level": {"type": "integer"}}, "additionalProperties": False}
    (tmp_path / "cool.schema.json").write_text(json.dumps(schema))

    good, bad = supervised.verdicts(job(("cool", {"level": 5})), job(("cool", {"levle": "x"})))

    assert good.failure is None
    assert bad.info["message"] == "Could not validate task data: levle: unknown key (did you mean 'level'?)"


def test_broken_schema_beside_the_module(supervised: Supervised, tmp_path: Path) -> None:
    """A schema that is no JSON is a mistake in the configuration, told as such."""
    use(supervised, BESIDE)
    (tmp_path / "cool.schema.json").write_text("{")

    cause = supervised.cause(job(("cool", {})))

    assert cause.unusable
    assert "modules.cool.Cool) cannot be imported: JSONDecodeError" in cause.message
