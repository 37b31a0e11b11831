"""Which instances have registered with Systems Manager; moto has no such list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import moto.ssm.urls
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ssm.responses import SimpleSystemManagerResponse

from rehearsal.account.ec2.backend import backend_of
from rehearsal.account.iam.policies import Question, evaluate
from rehearsal.account.iam.simulate import statements_of
from rehearsal.account.images import WITH_SSM_AGENT
from rehearsal.account.metadata import profile_of

if TYPE_CHECKING:
    from rehearsal.account.ec2.models import Instance

REGISTERS = "ssm:UpdateInstanceInformation"
"""What an agent calls to register, with the credentials of its instance."""


class SystemsManagerApi(SimpleSystemManagerResponse):
    """moto's, with the instances whose agent has registered."""

    def describe_instance_information(self) -> ActionResult:
        """The running instances whose image has the agent and whose role lets it register."""
        now = utcnow()
        backend = backend_of(self.current_account, self.region)
        known = [i for i in backend.instances() if i.state == "running" and self._registers(i)]
        return ActionResult(
            {
                "InstanceInformationList": [
                    {
                        "InstanceId": i.id,
                        "PingStatus": "Online",
                        "LastPingDateTime": now,
                        "PlatformType": "Linux",
                        "ResourceType": "EC2Instance",
                        "IPAddress": i.private_ip_address,
                    }
                    for i in known
                ]
            }
        )

    def _registers(self, instance: Instance) -> bool:
        if instance.image_id not in WITH_SSM_AGENT:
            return False
        profile = profile_of(backend_of(self.current_account, self.region), instance)
        asked = Question(REGISTERS, "*", {})
        return profile is not None and any(
            evaluate(statements_of(self.current_account, role.arn), asked) == "allow"
            for role in profile.roles
        )


def install() -> None:
    """Make moto serve Systems Manager through this. Call before the first request."""
    moto.ssm.urls.url_paths["{0}/$"] = SystemsManagerApi.dispatch
