"""Elastic Load Balancing over moto's, whose listeners take certificates that are not issued."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import moto.elb.urls
import moto.elbv2.urls
from moto.acm.exceptions import CertificateNotFound
from moto.acm.models import acm_backends
from moto.elb.responses import ELBResponse
from moto.elbv2.exceptions import ELBClientError
from moto.elbv2.responses import ELBV2Response

if TYPE_CHECKING:
    from moto.core.responses import ActionResult

V2 = "2015-12-01"
"""Version of the API of network load balancers; classic ones share its address."""


class UnsupportedCertificateError(ELBClientError):
    """A certificate that no listener takes."""

    code = "UnsupportedCertificate"


class BalancersApi(ELBV2Response):
    """moto's, with the certificates of listeners looked at."""

    def create_listener(self) -> ActionResult:
        """Refused with a certificate that is not issued."""
        self._refuse_unissued()
        return super().create_listener()

    def modify_listener(self) -> ActionResult:
        """Refused with a certificate that is not issued."""
        self._refuse_unissued()
        return super().modify_listener()

    def _refuse_unissued(self) -> None:
        acm = acm_backends[self.current_account][self.region]
        for named in self._get_param("Certificates", []):
            arn = named.get("CertificateArn")
            try:
                status = acm.get_certificate(arn).status
            except CertificateNotFound:
                continue  # moto refuses it by itself
            if status != "ISSUED":
                # ELB's own words, which don't say that the certificate is pending or has expired.
                raise UnsupportedCertificateError(
                    f"The certificate '{arn}' must have a fully-qualified domain name, a "
                    "supported signature, and a supported key size."
                )


def _dispatch(*given: Any, **named: Any) -> Any:
    api = BalancersApi if given[0].values.get("Version") == V2 else ELBResponse
    return api.dispatch(*given, **named)


def install() -> None:
    """Make moto serve load balancers through this. Call before the first request."""
    for urls in (moto.elb.urls, moto.elbv2.urls):
        urls.url_paths["{0}/$"] = _dispatch
