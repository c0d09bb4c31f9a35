"""Dockerfile and compose.yaml fit the checkout and the program. `scripts/image-test` builds and runs the images."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from app.config import SETTINGS
from supervisor.commands.cli import main

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
STAGES = dict(re.findall(r"^FROM \S+ AS (\w+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, flags=re.MULTILINE | re.DOTALL))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SENT = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
OTHERS = {"DATABASE_URL", "LANG", "PATH", "PGPASSWORD", "SISYPHUS_STATE_DIR"}
"""Variables that are no settings: of the server, of libpq and of the system."""


def of_program(command: list[str]) -> None:
    """Fails if the program does not understand a command."""
    found = main.get_command(click.Context(main), command[0])
    assert found, command
    found.make_context(command[0], command[1:])


def test_all_that_the_build_takes_is_sent() -> None:
    """What is copied from the checkout, and what the wheel is made of, exists and gets into the build."""
    copied = [shlex.split(line)[:-1] for line in re.findall(r"^COPY (?!--from)(.+)", DOCKERFILE, flags=re.MULTILINE)]
    wheel = (
        (ROOT / "pyproject.toml").read_text().partition("[tool.hatch.build.targets.wheel]")[2].partition("\n# ---")[0]
    )
    taken = re.findall(r'^"([^"]+)" = ', wheel, flags=re.MULTILINE) + re.findall(r'"(\w+)"', wheel.partition("]")[0])

    assert all((ROOT / name).exists() for name in SENT)
    assert {"app", "supervisor", "README.md"} <= set(taken) <= set(SENT)
    assert {name for names in copied for name in names} - {"."} <= set(SENT)


@pytest.mark.parametrize("name", ["client", "server"])
def test_images(name: str) -> None:
    """An image runs a command of the program as an ordinary user, and tells whether it is healthy."""
    stage = STAGES[name]
    (command,) = re.findall(r"^CMD (.+)", stage, flags=re.MULTILINE)
    (check,) = re.findall(r"^HEALTHCHECK .*CMD (.+)", stage, flags=re.MULTILINE)
    variables = set(re.findall(r"([A-Z_]+)=", " ".join(re.findall(r"^ENV (.+)", DOCKERFILE, flags=re.MULTILINE))))

    of_program(json.loads(command))
    compile(json.loads(check)[2], "HEALTHCHECK", "exec")
    assert re.findall(r"^USER (\w+)", stage, flags=re.MULTILINE) == ["sisyphus"]
    assert variables <= OTHERS | {setting.name for setting in SETTINGS.values()}


def test_compose() -> None:
    """The farm's services build images that there are, with commands and settings that there are; no secret is here."""
    services = COMPOSE["services"]
    built = [service for service in services.values() if "build" in service]
    volumes = [volume for service in services.values() for volume in service.get("volumes", ())]
    secrets = [value for service in services.values() for name, value in service["environment"].items()
               if re.search("TOKEN|PASSWORD", name)]  # fmt: skip

    assert {service["build"]["target"] for service in built} == {"client", "server"} <= set(STAGES)
    for service in built:
        of_program(service.get("command", ["start"]))
        assert set(service["environment"]) <= OTHERS | {setting.name for setting in SETTINGS.values()}
        assert set(service["depends_on"]) <= set(services)
    assert {re.sub(r"\$\{\w+:-(\w+)\}", r"\1", volume).partition(":")[0] for volume in volumes} == set(
        COMPOSE["volumes"]
    )
    assert len(secrets) == 5
    assert all(re.fullmatch(r"\$\{\w+:\?.+\}", secret) for secret in secrets)
