"""`scripts/check_structure.py`: each kind of finding, and none in this project."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_structure.py"


def check(root: Path) -> tuple[int, list[str]]:
    done = subprocess.run([sys.executable, SCRIPT, root], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()[:-1]


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_findings(tmp_path: Path) -> None:
    """What is over a bound is told with its place, its size and the bound; what is at the bound is not."""
    write(
        tmp_path,
        {
            "app/long.py": "def f():\n" + "    f()\n" * 39 + "\n\nasync def g():\n" + "    f()\n" * 40,
            "ipc/large.py": "class A:\n" + "    a = 1\n" * 300 + "b = 1\n" * 100,
            "child/double.py": "\n\nclass A:\n    class B: ...\n\n\nclass B: ...\n",
            "scripts/long.py": "def f():\n" + "    f()\n" * 40,
            "tests/long.py": "def f():\n" + "    f()\n" * 400,
            "server/one.py": "import os\nfrom server import two\n",
            "server/two.py": "import server.three\n",
            "server/three.py": "def f():\n    from server.one import os\n",
            "server/__init__.py": "import server.one\n",
            **{f"docs/full/{number}.md": "" for number in range(17)},
            **{f"docs/fitting/{number}.md": "" for number in range(16)},
            **{f"docs/fitting/__pycache__/{number}": "" for number in range(17)},
        },
    )

    assert check(tmp_path) == (
        1,
        [
            "ipc/large.py:1: the module has 401 lines (at most 400)",
            "app/long.py:43: the function g has 41 lines (at most 40)",
            "ipc/large.py:1: the class A has 301 lines (at most 300)",
            "scripts/long.py:1: the function f has 41 lines (at most 40)",
            "child/double.py:4: the class B has the same name as the one in child/double.py:7",
            "ipc/large.py:1: the class A has the same name as the one in child/double.py:3",
            "server/one.py:2: import cycle server.one -> server.two -> server.three -> server.one",
            "docs/full: the folder has 17 files (at most 16)",
        ],
    )


def test_sound_tree(tmp_path: Path) -> None:
    """Modules that import each other one way only, through a package or not, are no finding."""
    write(
        tmp_path,
        {
            "modules/ffmpeg/__init__.py": "from modules.ffmpeg import options\nfrom modules.base import Base\n",
            "modules/ffmpeg/options.py": "import modules.base\n",
            "modules/base.py": "class Base: ...\n",
        },
    )

    assert check(tmp_path) == (0, [])
