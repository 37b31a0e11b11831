"""What all of our EC2 actions share: the account they serve and the region's backend."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Protocol

from moto.ec2.responses._base_response import EC2BaseResponse

from rehearsal.account.ec2.backend import Backend, backend_of

if TYPE_CHECKING:
    from rehearsal.account.faults import Faults
    from rehearsal.account.life import Life


class AccountOfApi(Protocol):
    """What an EC2 action needs of the account."""

    life: Life
    faults: Faults


class Action(EC2BaseResponse):
    """Base of our actions. `account` is set on the class that serves one account."""

    account: AccountOfApi

    @property
    def backend(self) -> Backend:
        """The EC2 of the request's region."""
        return backend_of(self.current_account, self.region)

    def parameter(self, name: str, default: Any = None) -> Any:
        """A request parameter by EC2's name; dots go into structures."""
        return self._get_param(name, default)

    def tags_for(self, resource_type: str) -> dict[str, str]:
        """The tags that the request gives to a new resource."""
        return self._parse_tag_specification().get(resource_type, {})

    def filters(self) -> dict[str, list[str]]:
        """The request's filters: name -> values."""
        return {k: list(v) for k, v in self._filters_from_querystring().items()}

    def dry_run(self) -> None:
        """Raise EC2's DryRunOperation where only a dry run was asked for."""
        self.error_on_dryrun()

    def arn(self, resource_type: str, name: str) -> str:
        """The ARN of an EC2 resource of this account and region."""
        return (
            f"arn:{self.partition}:ec2:{self.region}:{self.current_account}:{resource_type}/{name}"
        )


def new_id(prefix: str) -> str:
    """A fresh EC2 resource id, e.g. `pg-0123456789abcdef0`."""
    return f"{prefix}-{secrets.token_hex(9)[:17]}"
