"""Service Quotas over the account's own limits; moto has defaults of VPC alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import moto.servicequotas.urls
from moto.servicequotas.exceptions import NoSuchResource
from moto.servicequotas.responses import ServiceQuotasResponse

from rehearsal.account.ec2.backend import backend_of
from rehearsal.account.ec2.limits import QUOTAS, Quota

if TYPE_CHECKING:
    from collections.abc import Callable


class QuotasApi(ServiceQuotasResponse):
    """The quotas that EC2 enforces here, with the account's values."""

    def get_service_quota(self) -> str:
        """One quota with the account's value."""
        return json.dumps({"Quota": self._shown(self._asked(), self._value)})

    def get_aws_default_service_quota(self) -> str:
        """One quota with the value of an account that set none."""
        return json.dumps({"Quota": self._shown(self._asked(), _default)})

    def list_service_quotas(self) -> str:
        """All quotas of a service with the account's values."""
        return json.dumps({"Quotas": self._of_service(self._value)})

    def list_aws_default_service_quotas(self) -> str:
        """All quotas of a service with the values of an account that set none."""
        return json.dumps({"Quotas": self._of_service(_default)})

    def _parameters(self) -> dict[str, Any]:
        return json.loads(self.body)

    def _asked(self) -> Quota:
        given = self._parameters()
        quota = QUOTAS.get(str(given.get("QuotaCode")))
        if quota is None or quota.service != given.get("ServiceCode"):
            raise NoSuchResource
        return quota

    def _of_service(self, value: Callable[[Quota], float]) -> list[dict[str, Any]]:
        service = self._parameters().get("ServiceCode")
        found = [q for q in QUOTAS.values() if q.service == service]
        if not found:
            raise NoSuchResource
        return [self._shown(quota, value) for quota in found]

    def _value(self, quota: Quota) -> float:
        return backend_of(self.current_account, self.region).limits.quota(quota.code)

    def _shown(self, quota: Quota, value: Callable[[Quota], float]) -> dict[str, Any]:
        place = f"{self.region}:{self.current_account}"
        return {
            "ServiceCode": quota.service,
            "QuotaCode": quota.code,
            "QuotaName": quota.name,
            "QuotaArn": f"arn:{self.partition}:servicequotas:{place}:{quota.service}/{quota.code}",
            "Value": value(quota),
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }


def _default(quota: Quota) -> float:
    return quota.value


def install() -> None:
    """Make moto serve Service Quotas through this. Call before the first request."""
    moto.servicequotas.urls.url_paths["{0}/$"] = QuotasApi.dispatch
