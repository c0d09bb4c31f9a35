"""`data`: the sets of options that the server keeps for modules."""

import json
from collections.abc import Callable
from typing import Any, TextIO

import click
import requests

from app.formats import STRICT_NUMBERS, quote_part
from supervisor.commands import COMPLETED
from supervisor.commands.cli import WholeGroup
from supervisor.commands.display import say
from supervisor.commands.farm.client import FarmClient, farm_command, print_json, tell_none
from supervisor.commands.shared import give_up

_module = click.argument("module")
_name = click.argument("name")


@click.group("data", cls=WholeGroup)
def data_command() -> None:
    """A module asks for one by its own name and the set's."""


def _command(name: str, summary: str) -> Callable[[Any], click.Command]:
    def add(function: Any) -> click.Command:
        command = farm_command(name)(function)
        command.help = summary
        data_command.add_command(command)
        return command

    return add


@_command("list", "List modules and the names of their sets. Status 1 if there are none.")
@click.argument("module", required=False)
def list_data(farm: FarmClient, as_json: bool, module: str | None) -> int:
    farm.need_ours("list what it keeps")
    modules = [module] if module else farm.get("/data")["names"]
    names = {each: farm.get(f"/data/{quote_part(each)}")["names"] for each in modules}
    if as_json:
        print_json(names)
    else:
        for each, kept in names.items():
            for name in kept:
                say(f"{each}  {name}")
    return COMPLETED if any(names.values()) else tell_none("Nothing is kept.")


@_command("get", "Print a set as JSON. Status 1 if there is none.")
@_module
@_name
def get_data(farm: FarmClient, as_json: bool, module: str, name: str) -> int:
    del as_json  # it is JSON anyway
    document = farm.find(_path(module, name))
    if document is None:
        return _tell_missing(module, name)
    print_json({key: value for key, value in document.items() if key not in ("_id", "name")})
    return COMPLETED


@_command("put", "Keep a set, in place of the former one: a JSON object from FILE or standard input.")
@_module
@_name
@click.argument("file", type=click.File(encoding="utf-8"), default="-")
def put_data(farm: FarmClient, as_json: bool, module: str, name: str, file: TextIO) -> int:
    del as_json  # there is nothing to print
    try:
        document = json.load(file, **STRICT_NUMBERS)
    except (ValueError, RecursionError) as error:
        give_up(f"{file.name}: is not JSON: {error}")
    if not isinstance(document, dict):
        give_up(f"{file.name}: expected a JSON object")
    farm.call("POST", _path(module, name), document)
    return COMPLETED


@_command("delete", "Delete a set. Status 1 if there is none.")
@_module
@_name
def delete_data(farm: FarmClient, as_json: bool, module: str, name: str) -> int:
    del as_json  # there is nothing to print
    found = farm.call("DELETE", _path(module, name), accept=(404,)).status != requests.codes.not_found
    return COMPLETED if found else _tell_missing(module, name)


def _path(module: str, name: str) -> str:
    return f"/data/{quote_part(module)}/{quote_part(name)}"


def _tell_missing(module: str, name: str) -> int:
    return tell_none(f"Nothing is kept for {module} under the name {name}.")
