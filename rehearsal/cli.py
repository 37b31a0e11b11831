"""The commands behind `make`: `python -m rehearsal COMMAND`."""

from __future__ import annotations

import json
import os
import shlex
import sys
from typing import Annotated

import boto3
import typer

from infra import leftovers
from infra.sources import stacks
from rehearsal import engine, machine
from rehearsal.driver import account_process, plugin, recovery, session, stackfile, teardown
from rehearsal.driver.errors import DriverError
from rehearsal.driver.nodes import instance_of
from rehearsal.driver.turn import turn
from rehearsal.image import model, rootfs, vllm, wheels
from rehearsal.machine.interface import MachineError
from rehearsal.paths import home

app = typer.Typer(
    help="This machine in the part of the AWS account.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

EXPECTED = (
    DriverError,
    engine.EngineError,
    MachineError,
    rootfs.RootfsError,
    vllm.RuntimeBuildError,
    model.ModelBuildError,
    wheels.WheelsError,
    leftovers.CannotLookError,
)
"""Faults whose message is for the person; anything else is a fault of ours, with its traceback."""
DEFAULT = "rehearsal"
Stack = Annotated[str, typer.Option(help="Name of the stack: Pulumi.<stack>.yaml.")]
Boot = Annotated[bool, typer.Option("--boot/--no-boot", help="Boot instances, or only list them.")]
Change = Annotated[str | None, typer.Argument(help="JSON, as the command shows it.")]
Bare = Annotated[
    bool, typer.Option("--bare", help="Nodes without vLLM, which install it from a package index.")
]
Provider = Annotated[
    plugin.ProviderChoice, typer.Option(help="The rehearsal's AWS provider, or the real one.")
]


@app.command()
def setup(*, stack: Stack = DEFAULT, boot: Boot = True, bare: Bare = False) -> None:
    """Build or find all that `up` needs, without applying anything."""
    session.prepare(stackfile.read(stacks(), stack), boot=boot, bare=bare)
    print("Everything that `make up` needs is here.")


@app.command()
def up(
    *, stack: Stack = DEFAULT, boot: Boot = True, bare: Bare = False, provider: Provider = "ours"
) -> None:
    """Bring the stack up on this machine and show how to ask its model something."""
    source = stackfile.read(stacks(), stack)
    found = session.prepare(source, boot=boot, bare=bare)
    with turn(home()):
        work = session.connect(home(), stack, found, provider, wait=boot)
        account_process.set_boot(work.endpoint, enabled=boot)
        if recovery.needed(work.pulumi):
            recovery.recover(work.pulumi, work.aws)
        work.pulumi.select()
        marker = recovery.begin(work.pulumi)
        if work.pulumi.run("up", "--refresh", "--yes", "--skip-preview") != 0:
            raise DriverError(
                f"The stack {stack} is not up: see above. `make up` goes on from there, "
                "`make down` takes away what was made."
            )
        marker.unlink()
    print(work.pulumi.ask("stack", "output", "--stack", stack), end="")
    if boot:
        trusted = "ca_certificate" in json.loads(
            work.pulumi.ask("stack", "output", "--json", "--stack", stack)
        )
        print(how_to_ask(stack, str(source.model.get("name", "")), own_authority=trusted))


@app.command()
def preview(stack: Stack = DEFAULT, provider: Provider = "ours") -> None:
    """Show what `up` would change."""
    found = session.prepare(stackfile.read(stacks(), stack), boot=False)
    with turn(home()):
        work = session.connect(home(), stack, found, provider)
        if recovery.needed(work.pulumi):
            recovery.recover(work.pulumi, work.aws)
        work.pulumi.select()
        if work.pulumi.preview() != 0:
            raise DriverError("The preview failed: see above. Nothing was changed.")


@app.command()
def down(stack: Stack = DEFAULT, provider: Provider = "ours") -> None:
    """Destroy the stack, end the rehearsal with its last stack, and prove that nothing is left."""
    place = home()
    with turn(place):
        if not place.root.exists():
            print(f"The stack {stack} has nothing here: there is no rehearsal in {place.root}.")
            teardown.sweep(place)
            return
        if engine.read_endpoint(place) is not None:
            found = session.Prepared(engine.ensure(), hardware=None)
            teardown.destroy(session.connect(place, stack, found, provider))
        teardown.end_rehearsal(place)


@app.command()
def env() -> None:
    """Print the environment of the rehearsal for `eval "$(make -s env)"`; start nothing."""
    place = home()
    endpoint = engine.read_endpoint(place)
    if endpoint is None:
        raise DriverError("There is no account yet: `make up` (or `make preview`) starts it.")
    for name in engine.foreign_variables(os.environ):
        print(f"unset {name}")
    for name, value in engine.environment(place, endpoint, engine.present()).items():
        print(f"export {name}={shlex.quote(value)}")
    if (runtime := vllm.built()) is not None:
        # What `moe bench` sends its load with.
        print(f"export MOE_BENCH_PYTHON={shlex.quote(str(vllm.python(runtime)))}")


@app.command()
def console(node: str, stack: Stack = DEFAULT) -> None:
    """Print what a node wrote on its console."""
    aws = _aws()
    answer = aws.client("ec2").get_console_output(
        InstanceId=instance_of(node, stack, aws), Latest=True
    )
    print(answer.get("Output", ""))


@app.command("exec", context_settings={"ignore_unknown_options": True})
def execute(node: str, command: list[str], stack: Stack = DEFAULT) -> None:
    """Run a command in a node as its root: `python -m rehearsal exec serve-0-0 -- COMMAND`."""
    raise typer.Exit(machine.enter(home(), instance_of(node, stack, _aws()), command))


@app.command()
def faults(change: Change = None) -> None:
    """Show the faults that the account will have, or set them: a JSON list, `[]` for none."""
    print(json.dumps(account_process.told(home(), "faults", _json(change)), indent=2))


@app.command()
def limits(change: Change = None) -> None:
    """Show the account's quotas and AWS's capacity where they were set, or set a region's."""
    print(json.dumps(account_process.told(home(), "limits", _json(change)), indent=2))


def _json(given: str | None) -> object:
    try:
        return None if given is None else json.loads(given)
    except ValueError as fault:
        raise DriverError(f"{given!r} is not JSON: {fault}.") from fault


@app.command(hidden=True)
def account_start() -> None:
    """Start the account alone."""
    print(account_process.start(home(), stackfile.DEFAULT_REGION).url)


@app.command(hidden=True)
def account_stop() -> None:
    """Stop the account's process; its state and its instances stay."""
    account_process.stop(home())


def how_to_ask(stack: str, name: str, *, own_authority: bool = False) -> str:
    """Return commands, ready to paste, that ask the stack's model something.

    The key goes to curl through a pipe: in an argument every user of the machine could read it.

    Args:
        stack: the stack's name.
        name: the name under which vLLM serves the model.
        own_authority: the endpoint's certificate is signed by the stack's gateway.
    """
    body = json.dumps({"model": name, "prompt": "Hello", "max_tokens": 16})
    output = f"pulumi stack output --stack {shlex.quote(stack)}"
    fetch = f"{output} ca_certificate > build/ca.pem\n" if own_authority else ""
    trust = " --cacert build/ca.pem" if own_authority else ""
    return (
        "\nAsk it something:\n\n"
        'eval "$(make -s env)"\n'
        f"{fetch}{output} api_key --show-secrets | sed 's/^/Authorization: Bearer /' |\n"
        f"  curl -sS --noproxy '*'{trust} -H @- -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(body)} \\\n"
        f'  "$({output} endpoint)/completions"\n'
    )


def main() -> None:
    """Run a command; an expected fault is told in a sentence and ends with exit status 1."""
    try:
        app()
    except EXPECTED as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(1)


def _aws() -> boto3.Session:
    place = home()
    endpoint = account_process.running(place)
    if endpoint is None:
        raise DriverError("The account isn't running: `make up` starts it.")
    os.environ.update(engine.environment(place, endpoint, None))
    return boto3.Session(region_name=endpoint.region)
