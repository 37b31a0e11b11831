"""A small cloud by hand: metadata and account as plain functions, two nodes on a real machine."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rehearsal import machine
from rehearsal.image import rootfs
from rehearsal.machine import faults
from rehearsal.machine.interface import Launch, Rule
from rehearsal.paths import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VPC = "vpc-0e2e000000000001"
CIDR = "10.77.0.0/16"
USER_DATA = b"""#cloud-config
write_files:
  - path: /opt/hello/index.html
    content: hello from user data
  - path: /etc/systemd/system/hello.service
    content: |
      [Service]
      ExecStart=/usr/bin/python3 -m http.server --directory /opt/hello 8000
runcmd:
  - [systemctl, start, hello]
"""


def launch_of(number: int, subnet: int = 1) -> Launch:
    """Return node number N: 10.77.<subnet>.<10 + N>."""
    address = f"10.77.{subnet}.{10 + number}"
    return Launch(
        instance_id=f"i-0e2e{subnet:04x}{number:08x}0",
        image_id="ami-e2e",
        vpc_id=VPC,
        vpc_cidr=CIDR,
        subnet_id=f"subnet-0e2e00000000{subnet:04x}",
        subnet_cidr=f"10.77.{subnet}.0/24",
        private_ip=address,
        mac=f"02:00:0a:4d:{subnet:02x}:{10 + number:02x}",
        hostname=f"ip-{address.replace('.', '-')}.ec2.internal",
        cpus=2,
        memory_mib=1024,
    )


def wait(holds: Callable[[], bool], limit_s: float, what: str) -> None:
    """Wait until something holds, or fail."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {limit_s} s for {what}"
        time.sleep(0.05)


@dataclass
class Cloud:
    """The machine under test, with what an account would hold."""

    FIRST = launch_of(1)
    SECOND = launch_of(2)

    home: Home
    launches: dict[str, Launch] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    containers: machine.Containers = field(init=False)

    def open(self) -> None:
        """Do as the account's process does at its start."""
        self.containers = machine.Containers(
            self.home, rootfs.ensure(), [], self.metadata, self.app, self.changes.append
        )

    def metadata(self, vpc_id: str, address: str) -> dict[str, Any] | None:
        """Return what an instance may know of itself."""
        launch = self.launches.get(address)
        if launch is None or vpc_id != VPC:
            return None
        nic = {
            "device-number": "0",
            "local-ipv4s": address,
            "mac": launch.mac,
            "subnet-ipv4-cidr-block": launch.subnet_cidr,
        }
        document = {"instanceId": launch.instance_id, "region": "us-east-1"}
        return {
            "meta-data": {
                "instance-id": launch.instance_id,
                "hostname": launch.hostname,
                "local-hostname": launch.hostname,
                "local-ipv4": address,
                "mac": launch.mac,
                "placement": {"availability-zone": "us-east-1a", "region": "us-east-1"},
                "network": {"interfaces": {"macs": {launch.mac: nic}}},
            },
            "dynamic": {"instance-identity": {"document": json.dumps(document)}},
            "user-data": gzip.compress(USER_DATA),
        }

    @staticmethod
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        """Answer as an account would: with who asks."""
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"account sees {environ['REMOTE_ADDR']}".encode()]

    def launch(self, number: int, subnet: int = 1) -> str:
        """Launch a node and return its id."""
        launch = launch_of(number, subnet)
        self.launches[launch.private_ip] = launch
        self.containers.launch(launch)
        return launch.instance_id

    def allow(self, *rules: Rule) -> None:
        """Replace the security groups' rules."""
        self.containers.firewall(VPC, rules)

    def run(self, instance_id: str, *argv: str) -> str:
        """Run a command in a node; it must succeed."""
        done = faults.run(self.home, instance_id, argv)
        assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def reaches(self, instance_id: str | None, address: str, port: int = 8000) -> bool:
        """Whether a node (or this machine: None) gets an answer from an address."""
        argv = ["curl", "-s", "-o", "/dev/null", "-m", "2", f"http://{address}:{port}/"]
        if instance_id is not None:
            return faults.run(self.home, instance_id, argv).returncode == 0
        return subprocess.run(argv, check=False).returncode == 0

    def wait_for_state(self, instance_id: str, state: str, limit_s: float = 45) -> None:
        """Wait until the machine says so."""
        wait(lambda: self.containers.state(instance_id) == state, limit_s, f"{state} {instance_id}")

    def wait_for_boot(self, instance_id: str, limit_s: float = 90) -> None:
        """Wait until cloud-init is through, and well."""
        self.wait_for_state(instance_id, "running")
        argv = ["cloud-init", "status", "--wait", "--long"]
        wait(lambda: self._has_bus(instance_id), limit_s, "systemd")
        done = faults.run(self.home, instance_id, argv, timeout_s=limit_s)
        assert done.returncode == 0, done.stdout + done.stderr

    def _has_bus(self, instance_id: str) -> bool:
        return faults.run(self.home, instance_id, ["systemctl", "show"]).returncode == 0


MOVING = re.compile(
    r"random\.|file-nr|inode-|dentry-state|ns_last_pid|pty\.nr|quota\.syncs|conntrack_count"
)
"""Settings of the kernel that count by themselves."""
REHEARSAL = re.compile(r"moe-?([0-9a-f]{6})")


def outer_machine(home: Home) -> dict[str, list[str]]:
    """Return what of this machine must not change while this rehearsal's instances come and go.

    Other rehearsals may run beside it: what bears their tags is left out.
    """
    texts = {
        "links": _out("ip", "-o", "link"),
        "routes": _out("ip", "route", "show", "table", "all"),
        "nftables": _out("nft", "list", "tables"),
        "mounts": Path("/proc/self/mounts").read_text(),
        "null device": oct(Path("/dev/null").stat().st_mode),
        "resolver": Path("/etc/resolv.conf").read_text(),
        "hosts": Path("/etc/hosts").read_text(),
        "sysctls": _out("sysctl", "-a"),
    }
    return {
        kind: sorted(
            line
            for line in text.splitlines()
            if not MOVING.search(line)
            and set(REHEARSAL.findall(line)) <= {home.tag}
            # Mounted for as long as there is any named namespace, whosever.
            and " /run/netns " not in line
        )
        for kind, text in texts.items()
    }


def _out(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout


@pytest.fixture(name="wait")
def _wait() -> Callable[[Callable[[], bool], float, str], None]:
    """Give tests `wait`."""
    return wait


@pytest.fixture(name="outer_machine")
def _outer_machine() -> Callable[[Home], dict[str, list[str]]]:
    """Give tests `outer_machine`."""
    return outer_machine


@pytest.fixture
def empty_cloud(tmp_path: Path) -> Iterator[Cloud]:
    """A machine without instances; whatever a test leaves is swept."""
    made = Cloud(Home(tmp_path / "rehearsal"))
    made.open()
    yield made
    made.containers.close()
    machine.sweep(made.home.tag)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Two booted nodes, 10.77.1.11 and 10.77.1.12, for a whole module."""
    made = Cloud(Home(tmp_path_factory.mktemp("cloud") / "rehearsal"))
    made.open()
    try:
        nodes = [made.launch(1), made.launch(2)]
        for node in nodes:
            made.wait_for_boot(node)
        yield made
    finally:
        made.containers.close()
        machine.sweep(made.home.tag)
