"""One AWS session per configured provider: clients are made once per service and region."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from botocore.session import Session as CoreSession

    from rehearsal.provider.config import ProviderConfig

_POOL = 64


class Session:
    """Clients and identity of one provider; safe for threads, botocore is loaded when used."""

    def __init__(self, config: ProviderConfig) -> None:
        self.config = config
        self._lock = threading.RLock()
        self._core: CoreSession | None = None
        self._clients: dict[tuple[str, str], Any] = {}
        self._identity: dict[str, str] | None = None

    def client(self, service: str, region: str | None = None) -> Any:
        """The client of a service in a region (the provider's own where none is given)."""
        key = (service, region or self.config.region)
        with self._lock:
            if key not in self._clients:
                self._clients[key] = self._make(*key)
            return self._clients[key]

    @property
    def identity(self) -> dict[str, str]:
        """Account, Arn and UserId of the caller; asked of STS once."""
        with self._lock:
            known = self._identity or self.client("sts").get_caller_identity()
            self._identity = known
            return known

    @property
    def account_id(self) -> str:
        """Twelve digits."""
        return self.identity["Account"]

    def check_account(self) -> None:
        """Prove that the credentials work, and that they lead to an account that is allowed.

        Raises:
            PermissionError: the account is not one that the settings allow.
        """
        config = self.config
        if not (config.check_account or config.allowed_accounts or config.forbidden_accounts):
            return
        account = self.account_id
        allowed = not config.allowed_accounts or account in config.allowed_accounts
        if not allowed or account in config.forbidden_accounts:
            msg = f"AWS account {account} is not one of those allowed: see allowedAccountIds"
            raise PermissionError(msg)

    def partition(self, region: str | None = None) -> str:
        """`aws`, `aws-cn` or `aws-us-gov`."""
        return self.client("sts", region).meta.partition

    def _make(self, service: str, region: str) -> Any:
        from botocore.config import Config  # noqa: PLC0415 - 0.2 s that a plain start does without

        config = self.config
        options = Config(
            max_pool_connections=_POOL,
            retries={"mode": "standard", "total_max_attempts": config.max_retries + 1},
            s3={"addressing_style": "path"} if config.path_style else None,
        )
        return self._core_session().create_client(
            service,
            region_name=region,
            endpoint_url=config.endpoints.get(service),
            aws_access_key_id=config.access_key,
            aws_secret_access_key=config.secret_key,
            aws_session_token=config.token,
            config=options,
        )

    def _core_session(self) -> CoreSession:
        if self._core is None:
            from botocore.session import Session as CoreSession  # noqa: PLC0415 - as above

            self._core = CoreSession(profile=self.config.profile)
        return self._core
