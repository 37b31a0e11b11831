"""EC2's API of one account: our actions over moto's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import moto.ec2.urls
from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses import EC2Response

from rehearsal.account.ec2 import backend
from rehearsal.account.ec2.blocks import CapacityBlocks
from rehearsal.account.ec2.capacity import CapacityReservations
from rehearsal.account.ec2.instances import Instances
from rehearsal.account.ec2.interfaces import Interfaces
from rehearsal.account.ec2.network import Network
from rehearsal.account.ec2.own_images import Images
from rehearsal.account.ec2.placement import PlacementGroups

if TYPE_CHECKING:
    from rehearsal.account.ec2.base import AccountOfApi

NOT_SERVED = ("CreateFleet", "RequestSpotFleet", "RequestSpotInstances", "CreateFlowLogs")
"""moto answers these with success, but no instance of ours would come of it."""


class Ec2Api(
    Instances,
    Interfaces,
    Images,
    Network,
    PlacementGroups,
    CapacityReservations,
    CapacityBlocks,
    EC2Response,
):
    """Our actions come first in the method resolution; the rest is moto's."""

    def call_action(self) -> Any:
        """Serve one request: states first brought up to date, the firewall afterwards."""
        if self._get_action() in NOT_SERVED:
            raise NotImplementedError(f"{self._get_action()} is not served by the rehearsal")
        try:
            self.account.life.reconcile()
            response = super().call_action()
            self.account.life.push_firewall()
        except EC2ClientError as refusal:  # the machine could not follow: the client must know
            return self.serialized(ActionResult(refusal))
        return response


def install(account: AccountOfApi) -> None:
    """Make moto serve EC2 through our actions for this account. Call before the first request."""
    backend.install()
    bound = type("Ec2", (Ec2Api,), {"account": account})
    moto.ec2.urls.url_paths["{0}/"] = bound.dispatch
