"""The rehearsal's account as a process, users of it with less than all permissions, stacks."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os

import boto3
import botocore.session
import pytest
from botocore.stub import Stubber

from infra.preflight import Asked, run
from infra.preflight.aws import Aws
from rehearsal.driver import account_process
from rehearsal.paths import Home

REGION = "us-east-1"
ASKED = Asked(
    stack="dev",
    nodes={"serve": ("c7i.large", 2)},
    interfaces=4,
    addresses=4,
    gpu=False,
    capacity_kind="on-demand",
    capacity_id=None,
    zone=None,
    vpc_id=None,
    subnet_id=None,
    elastic_ips=0,
    ami=None,
    model_name="tiny",
    model_source="build/models/tiny",
    model_revision=None,
    balanced=False,
    model_token=False,
    ttl_seconds=None,
)
NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory):
    """An account that boots nothing; everything here is asked of it over HTTP."""
    home = Home(tmp_path_factory.mktemp("account"))
    yield account_process.start(home, REGION)
    account_process.stop(home)


@pytest.fixture(scope="module", autouse=True)
def _environment(endpoint):
    """Nothing of this machine's own AWS; for these modules alone."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_ENDPOINT_URL", endpoint.url)
        yield


@pytest.fixture(scope="session")
def admin(endpoint):
    """The account's administrator."""
    return boto3.Session(endpoint.access_key_id, endpoint.secret_access_key, region_name=REGION)


@pytest.fixture
def user(admin):
    """Sessions of users with policies of these statements."""

    def make(*statements: dict) -> boto3.Session:
        iam, name = admin.client("iam"), f"user-{next(NUMBERS)}"
        document = {"Version": "2012-10-17", "Statement": list(statements)}
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=json.dumps(document))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        # Reading the services' models anew takes a second, and there are many users.
        core = botocore.session.Session()
        core.register_component("data_loader", admin._session.get_component("data_loader"))
        return boto3.Session(
            key["AccessKeyId"],
            key["SecretAccessKey"],
            region_name=REGION,
            botocore_session=core,
        )

    return make


@pytest.fixture
def without(user):
    """Sessions of users that may do everything but the actions named."""

    def make(*actions: str) -> boto3.Session:
        allow = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        return user(allow, {"Effect": "Deny", "Action": list(actions), "Resource": "*"})

    return make


@pytest.fixture
def asked():
    """A stack of two CPU nodes, changed as a test needs it."""

    def make(**changes) -> Asked:
        return dataclasses.replace(ASKED, **changes)

    return make


@pytest.fixture
def results_of(admin):
    """Code -> its results, in order."""

    def ask(code: str, stack: Asked, session: boto3.Session | None = None):
        results = run(session or admin, stack)
        return [r for r in results if r.code == f"PREFLIGHT_{code}"]

    return ask


@pytest.fixture
def result_of(results_of):
    def ask(code: str, stack: Asked, session: boto3.Session | None = None):
        (result,) = results_of(code, stack, session)
        return result

    return ask


@pytest.fixture
def subnet(admin):
    """A VPC with a subnet of so many bits, and nothing else."""
    ec2 = admin.client("ec2")

    def make(prefix: int = 24, zone: str = "us-east-1a") -> tuple[str, str]:
        vpc = ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
        made = ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.20.0.0/{prefix}", AvailabilityZone=zone)
        return vpc, made["Subnet"]["SubnetId"]

    return make


@pytest.fixture
def stubbed(admin):
    """AWS with some clients answering what a test says, for what the account can't be brought to.

    Each answer is (operation, response) or (operation, error code, message).
    """

    def make(**answers) -> Aws:
        aws = Aws.of(admin, "123456789012", "arn:aws:iam::123456789012:user/dev")
        services = {"quotas": "service-quotas"}
        clients = {}
        for name, given in answers.items():
            client = admin.client(services.get(name, name))
            stubber = Stubber(client)
            for operation, *answer in given:
                if isinstance(answer[0], dict):
                    stubber.add_response(operation, answer[0])
                else:
                    stubber.add_client_error(operation, answer[0], answer[1])
            stubber.activate()
            clients[name] = client
        return dataclasses.replace(aws, **clients)

    return make
