"""The LanguageRuntime service: what the engine asks of a language."""

# ruff: noqa: N802 - the methods carry the protocol's names

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    language_pb2,
    language_pb2_grpc,
    plugin_pb2,
)

from rehearsal.engine.language_host.children import Children, Stream, lines
from rehearsal.engine.language_host.interpreter import (
    ABOUT,
    DISTRIBUTIONS,
    PLUGINS,
    Interpreter,
    InterpreterError,
    interpreter_of,
    virtualenv_of,
)

SHOWN_ALREADY = 32
"""The executor's exit status for: the person has been shown what went wrong."""
NO_PROGRAM = "__pulumi_noop__"
"""The program's name when the engine wants a host but has nothing to run (destroy, refresh)."""


def program_of(info: language_pb2.ProgramInfo) -> str:
    """Return the path that the executor is to run: the entry point within the program's folder."""
    entry = info.entry_point
    folder = Path(info.program_directory)
    return str(folder if entry in ("", ".") else folder / entry)


def program_command(
    interpreter: Interpreter,
    executor: Path,
    engine_address: str,
    request: language_pb2.RunRequest,
) -> list[str]:
    """Return the argv that runs a program once.

    Args:
        interpreter: the program's Python.
        executor: path of pulumi-language-python-exec.
        engine_address: host:port of the engine's own service (logs).
        request: the engine's request; its monitor address goes to the program.
    """
    flags = {
        "--monitor": request.monitor_address,
        "--engine": engine_address,
        "--project": request.project,
        "--root_directory": request.info.root_directory,
        "--stack": request.stack,
        "--pwd": request.pwd,
        "--organization": request.organization,
        "--dry_run": "true" if request.dryRun else "false",
        "--parallel": str(request.parallel),
    }
    spelled = [word for pair in flags.items() for word in pair]
    head = [interpreter.executable, "-u", str(executor)]
    return [*head, *spelled, program_of(request.info), *request.args]


def program_environment(
    interpreter: Interpreter, request: language_pb2.RunRequest
) -> dict[str, str]:
    """Return the environment of a program: its Python's, with the stack's configuration."""
    return {
        **interpreter.environment(),
        "PULUMI_CONFIG": json.dumps(dict(request.config)),
        "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
    }


def plugin_command(interpreter: Interpreter, request: language_pb2.RunPluginRequest) -> list[str]:
    """Return the argv of a plugin written in Python: a policy pack, or a provider."""
    program = request.info.program_directory or request.program
    head = [interpreter.executable, "-u"]
    if request.kind == "analyzer":
        # argument 1 is the engine's address; pulumi.policy takes the pack's folder after it
        return [*head, "-m", "pulumi.policy", *request.args[:1], program]
    return [*head, program, *request.args]


def required_packages(
    found: Sequence[Mapping[str, str | bool]],
) -> list[plugin_pb2.PackageDependency]:
    """Return the provider plugins that installed packages ask for.

    Args:
        found: the pulumi-plugin.json of each installed package.
    """
    return [
        plugin_pb2.PackageDependency(
            name=str(package["name"]),
            kind="resource",
            server=str(package.get("server", "")),
            version="v" + str(package["version"]).lstrip("v") if package.get("version") else "",
        )
        for package in found
        if package.get("resource")
    ]


class PythonHost(language_pb2_grpc.LanguageRuntimeServicer):
    """Runs Python programs for one engine."""

    def __init__(
        self, executor: Path, version: str, engine_address: str, children: Children
    ) -> None:
        """Keep what every request needs.

        Args:
            executor: path of pulumi-language-python-exec.
            version: this host's version, as the engine shows it.
            engine_address: host:port of the engine; Handshake may bring another.
            children: where the processes of all requests are kept.
        """
        self._executor = executor
        self._version = version
        self._engine_address = engine_address
        self._children = children

    def Handshake(
        self, request: language_pb2.LanguageHandshakeRequest, context: grpc.ServicerContext
    ) -> language_pb2.LanguageHandshakeResponse:
        """Take the engine's address."""
        del context
        self._engine_address = request.engine_address
        return language_pb2.LanguageHandshakeResponse()

    def GetPluginInfo(
        self, request: empty_pb2.Empty, context: grpc.ServicerContext
    ) -> plugin_pb2.PluginInfo:
        """Say which version this is."""
        del request, context
        return plugin_pb2.PluginInfo(version=self._version)

    def RuntimeOptionsPrompts(
        self, request: language_pb2.RuntimeOptionsRequest, context: grpc.ServicerContext
    ) -> language_pb2.RuntimeOptionsResponse:
        """Ask nothing more of who makes a new project."""
        del request, context
        return language_pb2.RuntimeOptionsResponse()

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:
        """End the programs: the engine has cancelled."""
        del request, context
        self._children.stop()
        return empty_pb2.Empty()

    def About(
        self, request: language_pb2.AboutRequest, context: grpc.ServicerContext
    ) -> language_pb2.AboutResponse:
        """Say which Python runs the program (`pulumi about`)."""
        executable, version = _ask(request.info, ABOUT, context)
        return language_pb2.AboutResponse(executable=executable, version=version)

    def GetRequiredPackages(
        self, request: language_pb2.GetRequiredPackagesRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetRequiredPackagesResponse:
        """Say which provider plugins the program's packages need."""
        found = _ask(request.info, PLUGINS, context)
        return language_pb2.GetRequiredPackagesResponse(packages=required_packages(found))

    def GetProgramDependencies(
        self, request: language_pb2.GetProgramDependenciesRequest, context: grpc.ServicerContext
    ) -> language_pb2.GetProgramDependenciesResponse:
        """List what the program's Python has installed (`pulumi about`)."""
        return language_pb2.GetProgramDependenciesResponse(
            dependencies=[
                language_pb2.DependencyInfo(name=name, version=version)
                for name, version in _ask(request.info, DISTRIBUTIONS, context)
            ]
        )

    def InstallDependencies(
        self, request: language_pb2.InstallDependenciesRequest, context: grpc.ServicerContext
    ) -> Iterator[language_pb2.InstallDependenciesResponse]:
        """Make the virtual environment and install requirements.txt (`pulumi install`)."""
        for command in install_commands(request.info, Path(request.directory)):
            with self._children.run(command, dict(os.environ), request.directory) as process:
                for stream, line in lines(process):
                    yield install_output(stream, line)
                status = process.wait()
            if status != 0:
                context.abort(
                    grpc.StatusCode.UNKNOWN, f"`{' '.join(command)}` failed (exit status {status})."
                )

    def RunPlugin(
        self, request: language_pb2.RunPluginRequest, context: grpc.ServicerContext
    ) -> Iterator[language_pb2.RunPluginResponse]:
        """Run a policy pack or a provider that is written in Python."""
        interpreter = _interpreter(request.info, context)
        environment = interpreter.environment()
        for pair in request.env:
            name, _, value = pair.partition("=")
            environment[name] = value
        command = plugin_command(interpreter, request)
        with self._children.run(command, environment, request.pwd) as process:
            # the engine ends a plugin by ending the call
            context.add_callback(process.terminate)
            for stream, line in lines(process):
                yield plugin_output(stream, line)
            yield language_pb2.RunPluginResponse(exitcode=process.wait())

    def Run(
        self, request: language_pb2.RunRequest, context: grpc.ServicerContext
    ) -> language_pb2.RunResponse:
        """Run the program once; what it prints goes to the engine's log."""
        del context
        if Path(program_of(request.info)).name == NO_PROGRAM:
            return language_pb2.RunResponse()
        try:
            interpreter = interpreter_of(request.info)
        except InterpreterError as problem:
            return language_pb2.RunResponse(error=str(problem))
        command = program_command(interpreter, self._executor, self._engine_address, request)
        environment = program_environment(interpreter, request)
        with (
            grpc.insecure_channel(self._engine_address) as channel,
            self._children.run(command, environment, request.pwd) as process,
        ):
            self._log_output(process, engine_pb2_grpc.EngineStub(channel))
            status = process.wait()
        return outcome(status, cancelled=self._children.stopping.is_set())

    def _log_output(
        self, process: subprocess.Popen[bytes], engine: engine_pb2_grpc.EngineStub
    ) -> None:
        for _, line in lines(process):
            if self._children.stopping.is_set():
                continue  # what a program says while it is being ended is noise
            message = line.decode(errors="replace")
            # an engine that is ending no longer takes log lines; the program's result still counts
            with suppress(grpc.RpcError):
                engine.Log(engine_pb2.LogRequest(severity=engine_pb2.INFO, message=message))


def outcome(status: int, *, cancelled: bool) -> language_pb2.RunResponse:
    """Turn a program's exit status into what the engine is told.

    Args:
        status: as of subprocess: negative when a signal ended it.
        cancelled: the engine had asked for the end.
    """
    if status == SHOWN_ALREADY:
        return language_pb2.RunResponse(bail=True)
    if status < 0:
        error = f"The program was ended by signal {-status} ({signal.strsignal(-status)})."
        return language_pb2.RunResponse(error=error, bail=cancelled)
    if status > 0:
        return language_pb2.RunResponse(error=f"The program failed (exit status {status}).")
    return language_pb2.RunResponse()


def plugin_output(stream: Stream, line: bytes) -> language_pb2.RunPluginResponse:
    """Wrap what a plugin wrote."""
    if stream == "stdout":
        return language_pb2.RunPluginResponse(stdout=line)
    return language_pb2.RunPluginResponse(stderr=line)


def install_output(stream: Stream, line: bytes) -> language_pb2.InstallDependenciesResponse:
    """Wrap what an installer wrote."""
    if stream == "stdout":
        return language_pb2.InstallDependenciesResponse(stdout=line)
    return language_pb2.InstallDependenciesResponse(stderr=line)


def install_commands(info: language_pb2.ProgramInfo, folder: Path) -> list[list[str]]:
    """Return what `pulumi install` has to run, in order.

    Args:
        info: the program; its virtual environment is made where it is missing.
        folder: where requirements.txt may be.
    """
    commands = []
    executable = "python3"
    virtualenv = virtualenv_of(info)
    if virtualenv is not None:
        executable = str(virtualenv / "bin" / "python")
        if not Path(executable).exists():
            commands.append(["python3", "-m", "venv", str(virtualenv)])
    requirements = folder / "requirements.txt"
    if requirements.exists():
        commands.append([executable, "-m", "pip", "install", "-r", str(requirements)])
    return commands


def _ask(info: language_pb2.ProgramInfo, code: str, context: grpc.ServicerContext) -> Any:
    interpreter = _interpreter(info, context)
    try:
        return interpreter.ask(code, info.program_directory)
    except InterpreterError as problem:
        context.abort(grpc.StatusCode.UNKNOWN, str(problem))


def _interpreter(info: language_pb2.ProgramInfo, context: grpc.ServicerContext) -> Interpreter:
    try:
        return interpreter_of(info)
    except InterpreterError as problem:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(problem))
        raise  # abort raises; this tells the type checker
