"""`run`, `validate`, `modules`, `schema` and `config`: commands that need no server."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from supervisor.commands import FAILED
from supervisor.commands.cli import WholeGroup
from supervisor.commands.shared import config_option, exit_with, level_options, read_configuration, read_settings

if TYPE_CHECKING:
    from supervisor.commands.foreground import Foreground


@click.command("run")
@click.argument("job_file", metavar="JOB.json")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print only the job's record on standard output.")
@click.option("--dry-run", is_flag=True, help="Print the exact command lines, and run nothing.")
@level_options
def run_command(job_file: str, config: str | None, as_json: bool, dry_run: bool, level: str | None) -> None:
    """Status 0 if the job completed, 1 if it failed."""
    from supervisor.commands import job_files
    from supervisor.commands.foreground import Foreground

    settings, (client, limits) = read_settings(level), read_configuration(config)
    job = job_files.read_job_of(job_file, job_files.read_document(job_file), client.modules)
    foreground = Foreground(job, job_file, settings, client, limits)
    exit_with(foreground.plan() if dry_run else foreground.run(as_json))


@click.command("validate")
@click.argument("job_file", metavar="JOB.json")
@config_option
def validate_command(job_file: str, config: str | None) -> None:
    """Status 1 if there are any."""
    from supervisor.commands import job_files
    from supervisor.commands.foreground import Foreground
    from supervisor.jobs.model import JobError, read_job

    settings, (client, limits) = read_settings(), read_configuration(config)
    document = job_files.read_document(job_file)
    refused: list[JobError] = []
    try:
        job = read_job(document, client.modules, Path(job_file).stem, refused)
    except JobError as error:
        click.echo(f"{job_file}: {error}")
        sys.exit(FAILED)
    exit_with(Foreground(job, job_file, settings, client, limits).validate(refused))


@click.group("modules", cls=WholeGroup, invoke_without_command=True)
@config_option
@click.option("--probe", is_flag=True, help="Try each encoder with a second of picture or sound (takes a minute).")
@click.pass_context
def modules_command(context: click.Context, config: str | None, probe: bool) -> None:
    """Status 1 if one cannot run."""
    if not context.invoked_subcommand:
        exit_with(_all_modules(config).inspect(probe))


def _all_modules(config: str | None) -> "Foreground":
    from supervisor.commands.foreground import Foreground
    from supervisor.jobs.model import Job, Task

    settings, (client, limits) = read_settings(), read_configuration(config)
    job = Job("modules", "modules", tuple(Task(name, None) for name in client.modules))
    return Foreground(job, "", settings, client, limits)


@click.command("schema")
@config_option
def schema_command(config: str | None) -> None:
    """It is made of the schemas of the enabled modules. Write it to a file, and name that file in `"$schema"` of a job
    file: an editor then completes and checks the job.
    """
    exit_with(_all_modules(config).schema())


@modules_command.command("new")
@click.argument("name")
@click.option(
    "--directory",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The directory for the files (default: modules/ and tests/ of the checkout).",
)
@click.option("--package", is_flag=True, help="Write a package that pip installs, into DIR or the working directory.")
def new_module(name: str, directory: Path | None, package: bool) -> None:
    """Write a working module and its test, as a start for your own."""
    from supervisor.commands.new_module import write_module

    click.echo("\n".join(write_module(name, directory, as_package=package)))


@click.command("config")
@config_option
def config_command(config: str | None) -> None:
    from supervisor.commands import display

    settings, (client, limits) = read_settings(), read_configuration(config)
    display.show_configuration(settings, client, limits, os.environ)
