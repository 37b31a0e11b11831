"""An account (moto's server) and the provider as the engine talks to it: over gRPC."""

from __future__ import annotations

import hashlib
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import boto3
import grpc
import pytest
from google.rpc import status_pb2
from moto.server import ThreadedMotoServer
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from rehearsal.provider.__main__ import serve
from rehearsal.provider.wire import from_struct, to_struct

REGION = "us-west-2"


@dataclass
class Engine:
    """The calls that the engine makes, in its order, for tests to read like a program."""

    stub: Any
    seed: bytes = b"seed"
    urns: dict[str, int] = field(default_factory=dict)

    def configure(self, **settings: Any) -> Any:
        checked = self.stub.CheckConfig(provider_pb2.CheckRequest(news=to_struct(settings)))
        assert not checked.failures, checked.failures
        return self.stub.Configure(provider_pb2.ConfigureRequest(args=to_struct(settings)))

    def check(self, token: str, inputs: dict, old: dict | None = None, name: str = "it") -> Any:
        return self.stub.Check(
            provider_pb2.CheckRequest(
                urn=_urn(token, name),
                name=name,
                type=token,
                news=to_struct(inputs),
                olds=to_struct(old or {}),
                randomSeed=hashlib.sha256(self.seed).digest(),
            )
        )

    def checked(self, token: str, inputs: dict, old: dict | None = None, name: str = "it") -> dict:
        answer = self.check(token, inputs, old, name)
        assert not answer.failures, [f.reason for f in answer.failures]
        return from_struct(answer.inputs)

    def create(
        self,
        token: str,
        inputs: dict,
        *,
        preview: bool = False,
        timeout: float = 30,
        name: str = "it",
    ) -> Made:
        full = self.checked(token, inputs, name=name)
        made = self.stub.Create(
            provider_pb2.CreateRequest(
                urn=_urn(token, name),
                name=name,
                type=token,
                properties=to_struct(full),
                preview=preview,
                timeout=timeout,
            )
        )
        return Made(token, made.id, full, from_struct(made.properties), name)

    def diff(self, made: Made, inputs: dict) -> Any:
        full = self.checked(made.token, inputs, made.inputs, made.name)
        return self.stub.Diff(
            provider_pb2.DiffRequest(
                id=made.id,
                urn=_urn(made.token, made.name),
                type=made.token,
                olds=to_struct(made.state),
                news=to_struct(full),
                old_inputs=to_struct(made.inputs),
            )
        )

    def update(self, made: Made, inputs: dict, *, preview: bool = False) -> Made:
        full = self.checked(made.token, inputs, made.inputs, made.name)
        answer = self.stub.Update(
            provider_pb2.UpdateRequest(
                id=made.id,
                urn=_urn(made.token, made.name),
                type=made.token,
                olds=to_struct(made.state),
                news=to_struct(full),
                old_inputs=to_struct(made.inputs),
                preview=preview,
                timeout=30,
            )
        )
        return Made(made.token, made.id, full, from_struct(answer.properties), made.name)

    def read(self, made: Made) -> Made:
        answer = self.stub.Read(
            provider_pb2.ReadRequest(
                id=made.id,
                urn=_urn(made.token, made.name),
                type=made.token,
                properties=to_struct(made.state),
                inputs=to_struct(made.inputs),
            )
        )
        inputs, state = from_struct(answer.inputs), from_struct(answer.properties)
        return Made(made.token, answer.id, inputs, state, made.name)

    def found(self, token: str, rid: str) -> Made:
        """An import: only the id is known."""
        return self.read(Made(token, rid, {}, {}))

    def delete(self, made: Made, timeout: float = 30) -> None:
        self.stub.Delete(
            provider_pb2.DeleteRequest(
                id=made.id,
                urn=_urn(made.token, made.name),
                type=made.token,
                properties=to_struct(made.state),
                old_inputs=to_struct(made.inputs),
                timeout=timeout,
            )
        )

    @staticmethod
    def half_made(error: grpc.RpcError) -> Any:
        """What the engine is told of a resource that exists although its operation failed."""
        trailers = dict(error.trailing_metadata())
        status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
        detail = provider_pb2.ErrorResourceInitFailed()
        assert status.details[0].Unpack(detail)
        return detail

    def invoke(self, token: str, **arguments: Any) -> Any:
        request = provider_pb2.InvokeRequest(tok=token, args=to_struct(arguments))
        return self.stub.Invoke(request)


@dataclass(frozen=True)
class Made:
    """A resource as the engine keeps it."""

    token: str
    id: str
    inputs: dict
    state: dict
    name: str = "it"


def _urn(token: str, name: str) -> str:
    return f"urn:pulumi:dev::test::{token}::{name}"


@pytest.fixture(scope="session")
def account():
    """An account that all tests share, found through the environment as any AWS client finds it.

    Tests make what they need and name nothing twice: emptying moto costs a second each time.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
            environment.delenv(name, raising=False)
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "test")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "test")
        environment.setenv("AWS_DEFAULT_REGION", REGION)
        yield f"http://{host}:{port}"
    server.stop()


@contextmanager
def provider():
    server, port = serve(None)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Engine(provider_pb2_grpc.ResourceProviderStub(channel))
    server.stop(0)


@pytest.fixture
def bare(account):
    """A provider of its own that is not configured yet."""
    with provider() as engine:
        yield engine


@pytest.fixture(scope="session")
def configured(account):
    with provider() as engine:
        engine.configure(region=REGION, defaultTags='{"tags": {"stack": "dev"}}')
        yield engine


@pytest.fixture
def engine(configured):
    """The provider, configured with a region and a default tag; seeds differ between tests."""
    configured.seed = uuid.uuid4().bytes
    return configured


@pytest.fixture(scope="session")
def clients(account):
    @cache
    def client(service):
        return boto3.client(service, region_name=REGION)

    return client


@pytest.fixture
def ec2(clients):
    return clients("ec2")
