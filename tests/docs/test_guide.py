"""The module guide holds to the letter: what is written after it works from a file without a change."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from supervisor.jobs.task_run import JobObserver, TaskRun
from tests.support.supervised import Supervised, job


@pytest.mark.parametrize(
    "name", ["MyCustomModule", "CoolCustomModule", "ForgetsTheStartTime", "UsesOldHeartbeatNames", "NotDerived"]
)
def test_snippet_works(supervised: Supervised, name: str) -> None:
    """A module as the guide writes it completes."""
    supervised.configure(modules={"cool": f"tests.guide.{name}"})

    done = supervised.run(job(("cool", {"key": {"nested": [1]}})))

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("FailsToInitialize", "InitializationError", "Could not build additional pylons."),
        ("FailsToValidate", "ValidationError", "Your data is bad and you should feel bad."),
        ("FailsToRun", "RunError", "Something bad happened, but on a side-note: let me tell you about my poetry..."),
        ("FailsToCleanUp", "CleanupError", "Couldn't delete a temporary file and now it's your problem."),
    ],
)
def test_snippet_fails_as_it_says(supervised: Supervised, name: str, error: str, message: str) -> None:
    """Each of the four errors, raised as in the guide, is the job's error, with its message."""
    supervised.configure(modules={"cool": f"tests.guide.{name}"})

    record = supervised.record(job(("cool", {})))

    assert record["error"]["type"] == error
    assert record["error"]["message"] == message
    assert record["error"]["reason"] == "exception"


@pytest.mark.parametrize("name", ["ManyHeartbeats", "NamesOfItsOwn", "ForksWorkers", "WarnsWithoutItsBase"])
def test_unusual_module_works(supervised: Supervised, name: str) -> None:
    """What the guide does not forbid works."""
    supervised.configure(modules={"cool": f"tests.guide.{name}"})

    done = supervised.run(job(*[("cool", {})] * 5))

    assert done.returncode == 0, done.stderr
    assert "Asked" not in done.stderr
    assert "secret" not in done.stdout


def test_spawned_workers_find_their_module(supervised: Supervised, tmp_path: Path) -> None:
    """A module from a directory of its own may use multiprocessing with spawn."""
    (tmp_path / "spawning.py").write_text(
        "import multiprocessing\nfrom modules.base import BaseModule\n"
        "def double(x):\n    return 2 * x\n"
        "class Spawning(BaseModule):\n    def run(self):\n"
        "        with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "            assert pool.map(double, [1]) == [2]\n"
    )
    supervised.configure({"run_timeout": "60s"}, {"cool": "modules.spawning.Spawning"}, paths=(str(tmp_path),))

    done = supervised.run(job(("cool", {})))

    assert done.returncode == 0, done.stderr


def test_what_a_module_left_open_is_written(supervised: Supervised, tmp_path: Path) -> None:
    """Files that a module has not closed, and what it registered for the end, are as after an interpreter's end."""
    (tmp_path / "sloppy.py").write_text(
        "import atexit\nfrom modules.base import BaseModule\nkept = []\n"
        "class Sloppy(BaseModule):\n    def run(self):\n"
        "        kept.append(open(self.task.out, 'w'))\n        kept[0].write('text')\n"
        "        atexit.register(open, self.task.out + '2', 'w')\n"
    )
    supervised.configure(modules={"cool": "sloppy.Sloppy"}, paths=(str(tmp_path),))

    done = supervised.run(job(("cool", {"out": str(tmp_path / "out")})))

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_text() == "text"
    assert (tmp_path / "out2").exists()


def test_error_of_an_authors_own_class(supervised: Supervised) -> None:
    """An error class that derives from one of the four and forgets its base's __init__ is an error like it."""
    supervised.configure(modules={"cool": "tests.guide.RaisesItsOwnClass"})

    error = supervised.record(job(("cool", {})))["error"]

    assert (error["type"], error["reason"], error["message"]) == ("RunError", "exception", "41")


def test_progress_and_information_arrive(supervised: Supervised) -> None:
    """What a module tells its heartbeat reaches the supervisor, the last of it too."""
    supervised.configure(modules={"cool": "tests.guide.MyCustomModule"})
    said = []

    class Ear(JobObserver):
        def on_status(self, run: TaskRun) -> None:
            said.append(run.status)

    supervised.verdicts(job(("cool", {})), observer=Ear())

    assert said[0].progress is None
    assert said[-1].progress == 43
    assert said[-1].info == {"current_frame": 197, "total_frames": 24067}


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

    done = supervised.run(job(("cool", {})))

    assert done.returncode == 0, done.stderr


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
    pushed = []

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"path": self.path}).encode())

        def do_POST(self) -> None:
            pushed.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    supervised.configure(modules={"cool": "tests.guide.UsesServerSideData"})
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        monkeypatch.setenv("API_URL", f"http://127.0.0.1:{server.server_port}")
        done = supervised.run(job(("cool", {"out": str(tmp_path / "out")})))
        server.shutdown()
        serving.join()

    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out").read_text()) == {"path": "/data/ffmpeg/x265-veryfast"}
    assert pushed == [{"options": {"codec": "libx265", "crf": 19, "preset": "veryfast"}}]


BESIDE = "from modules.base import BaseModule\nclass Cool(BaseModule):\n    pass\nclass Same(Cool):\n    pass\n"


@pytest.mark.parametrize("name", ["Cool", "Same"])
def test_schema_beside_the_module(supervised: Supervised, tmp_path: Path, name: str) -> None:
    """A JSON schema in a file of its own is picked up by the base class."""
    (tmp_path / "cool.py").write_text(BESIDE)
    schema = {"properties": {"level": {"type": "integer"}}, "additionalProperties": False}
    (tmp_path / "cool.schema.json").write_text(json.dumps(schema))
    supervised.configure(modules={"cool": f"modules.cool.{name}"}, paths=(str(tmp_path),))

    good = supervised.record(job(("cool", {"level": 5})))
    bad = supervised.record(job(("cool", {"levle": "x"})))

    assert good["completed"]
    assert bad["error"]["type"] == "ValidationError"
    assert bad["error"]["message"] == "levle: unknown key (did you mean 'level'?)"


def test_broken_schema_beside_the_module(supervised: Supervised, tmp_path: Path) -> None:
    """A schema that is no JSON is a mistake in the configuration, told as such."""
    (tmp_path / "cool.py").write_text(BESIDE)
    (tmp_path / "cool.schema.json").write_text("{")
    supervised.configure(modules={"cool": "modules.cool.Cool"}, paths=(str(tmp_path),))

    done = supervised.run(job(("cool", {})))

    assert done.returncode == 2
    assert "modules.cool.Cool) cannot be imported: JSONDecodeError" in done.stderr
