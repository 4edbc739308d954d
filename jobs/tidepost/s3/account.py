"""Who asks at a store of S3, where that is not left to what boto3 finds: an Airflow connection of the type `aws`.

https://airflow.apache.org/docs/apache-airflow-providers-amazon/stable/connections/aws.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tidepost.definition.connection import Connection
from tidepost.definition.reference import resolve
from tidepost.errors import Misconfigured

if TYPE_CHECKING:
    from botocore.config import Config
    from mypy_boto3_s3 import S3Client

    from tidepost.definition.reference import Secret
    from tidepost.s3 import connection

_ROLES: Final = ("role_arn", "assume_role_method", "assume_role_kwargs", "session_kwargs")


@dataclass(frozen=True, slots=True)
class Account:
    """What a connection says; what it leaves out, boto3 finds. Its texts show no secret.

    endpoint: the address of a store that is not AWS's
    """

    key: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    profile: str | None = None
    region: str | None = None
    endpoint: str | None = None

    @classmethod
    def of(cls, text: str, where: str) -> Account:
        """An account from a connection's URI or JSON, which stands at `where`. Raises Misconfigured."""
        try:
            found = Connection.parse(text)
        except ValueError as error:
            raise Misconfigured(
                f"{where}: what it refers to {error}", hint="Write aws://KEY:SECRET@/?region_name=REGION."
            ) from None
        if found.type != "aws":
            raise Misconfigured(f"{where}: refers to a connection of the type {found.type}, not aws")
        roles = [name for name in _ROLES if found.extra.get(name)]
        if roles:
            raise Misconfigured(
                f"{where}: the connection has {roles[0]}, and no role is taken on by a connection here",
                hint="Give the worker that role, or name a profile that takes it on (profile_name).",
            )
        return cls(
            key=found.login or None,
            secret=found.password or None,
            token=found.value("aws_session_token"),
            profile=found.value("profile_name"),
            region=found.value("region_name"),
            endpoint=_endpoint(found.extra),
        )

    def client(self, config: Config) -> S3Client:
        """A client in the account's name; raises as boto3 does."""
        import boto3  # noqa: PLC0415 - heavy, and not needed by projects without S3

        session = boto3.session.Session(
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            aws_session_token=self.token,
            profile_name=self.profile,
            region_name=self.region,
        )
        return session.client("s3", config=config, endpoint_url=self.endpoint)


def _endpoint(extra: Mapping[str, Any]) -> str | None:
    """As Airflow's own provider finds it: that of S3, else that of all services."""
    services = extra.get("service_config")
    service = services.get("s3") if isinstance(services, Mapping) else None
    found = (service.get("endpoint_url") if isinstance(service, Mapping) else None) or extra.get("endpoint_url")
    return str(found) if found else None


def s3_of(reference: Secret | None, env: Mapping[str, str] | None, where: str) -> connection.Connection | None:
    """The connection to S3 that a reference names, which stands at `where`; None where there is none. Raises
    Misconfigured."""
    if reference is None:
        return None
    from tidepost.s3 import connection  # noqa: PLC0415 - boto3 comes with it

    return connection.Connection.shared(Account.of(resolve(str(reference), env, where=where), where))
