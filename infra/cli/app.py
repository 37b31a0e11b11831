"""The commands of `moe` and their options; each command's work is in a module of its own.

Those modules are imported when their command runs: `moe plan` must not wait for boto3.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)

StackArgument = Annotated[str, typer.Argument(help="Name of the stack.")]
StackOption = Annotated[str, typer.Option("--stack", "-s", help="Name of the stack.")]
RegionOption = Annotated[str | None, typer.Option(help="AWS region; the stack file's by default.")]
FileOption = Annotated[
    Path | None, typer.Option("--file", "-f", help="A stack file or a settings file.")
]
ModelConfigOption = Annotated[
    Path | None, typer.Option(help="The model's config.json, instead of the settings' own.")
]
BucketOption = Annotated[str | None, typer.Option(help="The stack's bucket, if not the usual.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.callback()
def _root() -> None:
    """Mixture-of-Experts models on AWS with vLLM."""


@app.command()
def plan(  # noqa: PLR0913 - each is an option of the command
    *,
    stack: StackOption = "rehearsal",
    file: FileOption = None,
    model_config: ModelConfigOption = None,
    json_: JsonOption = False,
    commands: Annotated[
        bool, typer.Option(help="Print each node's command as one would paste it.")
    ] = False,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a drawing for a design review.")
    ] = None,
    user_data: Annotated[
        str | None, typer.Option(metavar="NODE", help="Print the user data of a node.")
    ] = None,
) -> None:
    """Show what will be built, before anything is. Reads no account."""
    from infra.cli import plan as command  # noqa: PLC0415 - see the module's docstring

    with _errors_as_sentences():
        planned = command.load(stack, file, model_config)
        if user_data is not None:
            command.print_user_data(planned, user_data)
        elif svg is not None:
            command.write_svg(planned, svg)
        elif json_:
            command.print_json(planned)
        elif commands:
            command.print_commands(planned)
        else:
            command.print_table(planned)


@app.command()
def check(
    *,
    stack: StackOption = "rehearsal",
    file: FileOption = None,
    model_config: ModelConfigOption = None,
    json_: JsonOption = False,
) -> None:
    """Say what would go wrong. Exit status 1 on an error, 2 if the settings can't be read."""
    from infra.cli import check as command  # noqa: PLC0415 - see the module's docstring

    with _errors_as_sentences():
        sys.exit(command.run(stack, file, model_config, as_json=json_))


@app.command()
def preflight(
    stack: StackArgument = "rehearsal",
    *,
    file: FileOption = None,
    model_config: ModelConfigOption = None,
    role: Annotated[
        str | None,
        typer.Option(metavar="ARN", help="Who deploys, where these credentials only read."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Ask the account what it would refuse. Reads alone. Exit status 1 if anything fails."""
    from infra.cli import preflight as command  # noqa: PLC0415 - see the module's docstring

    with _errors_as_sentences():
        sys.exit(command.run(command.Question(stack, file, model_config, role, json_)))


@app.command()
def preview(stack: StackArgument = "rehearsal", *, json_: JsonOption = False) -> None:
    """Say what `pulumi up` would do: nodes, time without an answer, cost. Changes nothing."""
    from infra.cli import preview as command  # noqa: PLC0415 - see the module's docstring

    with _errors_as_sentences():
        command.run(stack, as_json=json_)


@app.command()
def explain(code: Annotated[str, typer.Argument(help="Code of a finding.")]) -> None:
    """Explain a finding: fact, consequence, remedy, source, example."""
    from infra.cli import explain as command  # noqa: PLC0415 - see the module's docstring

    with _errors_as_sentences():
        command.run(code)


@app.command()
def status(  # noqa: PLR0913 - each is an option of the command
    *,
    stack: StackOption = "rehearsal",
    bucket: BucketOption = None,
    region: RegionOption = None,
    json_: JsonOption = False,
    watch: Annotated[bool, typer.Option(help="Go on showing until interrupted.")] = False,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the timeline of the boot.")
    ] = None,
) -> None:
    """Show nodes, phases, seconds per phase, generation, endpoint, end and cost so far."""
    from infra.cli import status as command  # noqa: PLC0415 - see the module's docstring

    with _errors_as_sentences():
        command.run(command.Question(stack, bucket, region, json_, watch, svg))


@app.command()
def extend(
    stack: StackArgument,
    by: Annotated[str, typer.Argument(metavar="DURATION", help="How much longer: 30m, 2h.")],
    *,
    bucket: BucketOption = None,
    region: RegionOption = None,
) -> None:
    """Move the end of a stack with a ttl, so much later than it is now."""
    from infra.cli import extend as command  # noqa: PLC0415 - see the module's docstring

    with _errors_as_sentences():
        command.run(stack, by, bucket, region)


@app.command()
def bench(  # noqa: PLR0913 - each is an option of the command
    *,
    stack: StackOption = "rehearsal",
    region: RegionOption = None,
    rate: Annotated[
        list[float] | None, typer.Option(help="Requests per second; repeat for more runs.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Of a run; repeat for more.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long each run sends.")] = 20,
    input_tokens: Annotated[int, typer.Option(min=1, help="Of each prompt.")] = 128,
    output_tokens: Annotated[int, typer.Option(min=1, help="Of each answer.")] = 32,
    label: Annotated[str | None, typer.Option(help="Name of this bench in table and plot.")] = None,
    out: Annotated[Path, typer.Option(help="Result file; the plot lies beside it.")] = Path(
        "build/bench.json"
    ),
    beside: Annotated[
        list[Path] | None, typer.Option(help="An earlier result to show beside; repeat for more.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Another address, such as a primary's own.")
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(help="Certificates that vouch for the endpoint.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or Hugging Face id; the model's by default.")
    ] = None,
    python: Annotated[
        Path | None, typer.Option(help="Python of an environment with vLLM, for its bench.")
    ] = None,
) -> None:
    """Measure the endpoint under load with `vllm bench serve`. Exit status 1 if a request fails."""
    from infra.bench.asked import Load  # noqa: PLC0415 - see the module's docstring
    from infra.cli import bench as command  # noqa: PLC0415

    load = Load(
        tuple(rate or Load.rates), tuple(seed or Load.seeds), seconds, input_tokens, output_tokens
    )
    with _errors_as_sentences():
        asked = command.Question(
            *(stack, region, base_url, label, tokenizer, python, ca_file),
            *(load, out, tuple(beside or ())),
        )
        sys.exit(command.run(asked))


@app.command()
def doctor(  # noqa: PLR0913 - each is an option of the command
    stack: StackArgument = "rehearsal",
    *,
    bucket: BucketOption = None,
    region: RegionOption = None,
    json_: JsonOption = False,
    list_: Annotated[bool, typer.Option("--list", help="Print the library of symptoms.")] = False,
    all_: Annotated[bool, typer.Option("--all", help="Show consequences too.")] = False,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read this log instead of a stack.")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read vLLM's metrics from this file.")
    ] = None,
    transfer: Annotated[
        bool, typer.Option(help="Print what nodes measured between them, beside its floor.")
    ] = False,
) -> None:
    """Say what is wrong with a stack, first cause first. Exit status 1 if anything is."""
    from infra.cli import doctor as command  # noqa: PLC0415 - see the module's docstring

    with _errors_as_sentences():
        if list_:
            command.list_symptoms(as_json=json_)
            return
        question = command.Question(stack, bucket, region, json_, all_, log, metrics, transfer)
        sys.exit(command.run(question))


@app.command()
def bake(  # noqa: PLR0913 - each is an option of the command
    stack: StackArgument = "rehearsal",
    *,
    group: Annotated[
        str | None, typer.Option(help="Whose software, if the stack has several groups.")
    ] = None,
    instance_type: Annotated[
        str | None, typer.Option(help="Of the builder; for GPU groups a type without GPUs.")
    ] = None,
    timeout: Annotated[str, typer.Option(metavar="DURATION", help="At most so long.")] = "90m",
    list_: Annotated[bool, typer.Option("--list", help="List the stack's images.")] = False,
    delete: Annotated[
        str | None, typer.Option(metavar="AMI", help="Delete an image and its snapshots.")
    ] = None,
    bucket: BucketOption = None,
    region: RegionOption = None,
) -> None:
    """Make an AMI with everything installed, from a short-lived instance of a stack that is up."""
    from infra.cli import bake as command  # noqa: PLC0415 - see the module's docstring

    with _errors_as_sentences():
        if list_:
            command.list_images(stack, region)
        elif delete is not None:
            sys.exit(command.delete_image(stack, delete, region))
        else:
            asked = command.Question(stack, group, instance_type, timeout, bucket, region)
            sys.exit(command.run(asked))


@app.command()
def leftovers(
    *,
    stack: StackOption = "rehearsal",
    region: RegionOption = None,
    delete: Annotated[bool, typer.Option(help="Delete what is found, after a question.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete without a question.")] = False,
) -> None:
    """List what the account still has of a stack. Exit status 1 if there is anything."""
    from infra.cli import leftovers as command  # noqa: PLC0415 - see the module's docstring

    with _errors_as_sentences():
        sys.exit(command.run(stack, region, delete=delete, yes=yes))


@contextmanager
def _errors_as_sentences() -> Iterator[None]:
    """Our own errors are written for a person: print them, exit with 2, show no traceback."""
    from infra.cli.errors import sentence_of  # noqa: PLC0415 - see the module's docstring

    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        print(sentence, file=sys.stderr)
        sys.exit(2)
