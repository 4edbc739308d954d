"""What goes wrong with S3, as errors that name the place and what to mend.

A store's own words are left out, but for its code (`AccessDenied`): they may quote what it was asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tidepost.errors import Misconfigured, Retryable, TidepostError

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

NO_SUCH_KEY: Final = frozenset({"NoSuchKey", "404"})
CONDITION_FAILED: Final = frozenset({"PreconditionFailed", "412"})
NO_SUCH_RANGE: Final = frozenset({"InvalidRange", "416"})
IN_CONFLICT: Final = frozenset({"ConditionalRequestConflict", "OperationAborted"})
BAD_CREDENTIALS: Final = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "TokenRefreshRequired"}
)
PASSING: Final = IN_CONFLICT | {
    "BadDigest",
    "IncompleteBody",
    "NoSuchUpload",  # somebody gave it up
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
}

CREDENTIALS: Final = (
    "Give credentials as boto3 finds them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the "
    "machine's role; AWS_ENDPOINT_URL_S3 names a store that is not AWS's."
)


@contextmanager
def told(place: str, endpoint: str, doing: str) -> Iterator[None]:
    """An error of boto3 in this block as one of ours; others pass.

    place:    `s3://bucket/prefix`
    endpoint: the store's address
    doing:    the operation, as S3 calls it
    """
    try:
        yield
    except Exception as error:
        found = translated(error, place, shown(endpoint), doing)
        if found is None:
            raise
        raise found from error


def translated(error: Exception, place: str, endpoint: str, doing: str) -> TidepostError | None:
    """An error of boto3 as one of ours; None for another's."""
    from botocore import exceptions as known  # noqa: PLC0415 - heavy

    if isinstance(error, known.ClientError):
        return _answered(error, place, endpoint)
    return _failed(error, place, endpoint, doing) if isinstance(error, known.BotoCoreError) else None


def _failed(error: BotoCoreError, place: str, endpoint: str, doing: str) -> TidepostError:
    """What it means that there was no answer."""
    from botocore import exceptions as known  # noqa: PLC0415

    kind = type(error).__name__
    if isinstance(error, known.SSLError):
        return Misconfigured(
            f"{place}: the certificate of {endpoint} is not trusted",
            hint="Name the authority's file in AWS_CA_BUNDLE.",
        )
    if isinstance(error, known.NoRegionError):
        return Misconfigured(f"{place}: no region is named", hint="Set AWS_REGION, or a region in the profile.")
    if isinstance(error, known.NoCredentialsError | known.PartialCredentialsError | known.ProfileNotFound):
        return Misconfigured(f"{place}: there are no credentials ({kind})", hint=CREDENTIALS)
    if isinstance(error, known.ConnectionError | known.HTTPClientError | known.IncompleteReadError):
        return Retryable(f"{place}: {doing}: no answer from {endpoint} ({kind})", hint="Run again when it answers.")
    if isinstance(error, known.CredentialRetrievalError | known.MetadataRetrievalError):
        return Retryable(f"{place}: the credentials' provider does not answer ({kind})", hint=CREDENTIALS)
    return Misconfigured(f"{place}: {doing} is not possible so ({kind})", hint=CREDENTIALS)


def _answered(error: ClientError, place: str, endpoint: str) -> TidepostError:
    """What a store's refusal means."""
    code, status = code_of(error), error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    what = f"{place}: {endpoint} answers {error.operation_name} with {code or status}"
    if code in PASSING or status == 429 or (status >= 500 and status != 501):
        return Retryable(what, hint="Run again later.")
    if code == "NoSuchBucket":
        bucket = place.removeprefix("s3://").partition("/")[0]
        return Misconfigured(
            f"{place}: there is no bucket {bucket} at {endpoint}",
            hint="Create it, or correct its name or the endpoint (AWS_ENDPOINT_URL_S3).",
        )
    if code in BAD_CREDENTIALS:
        return Misconfigured(what, hint=CREDENTIALS)
    if status in (401, 403):
        return Misconfigured(what, hint="Give these credentials the rights that docs/staging.md lists.")
    if status in (301, 307) or code in ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"):
        return Misconfigured(what, hint="The bucket is in another region: set AWS_REGION.")
    return Misconfigured(what, hint="Check the bucket, the endpoint (AWS_ENDPOINT_URL_S3) and what it supports.")


def code_of(error: ClientError) -> str:
    """The code of a store's refusal, such as `NoSuchKey`; the HTTP status where its answer has no body."""
    return str(error.response.get("Error", {}).get("Code", ""))


def shown(endpoint: str) -> str:
    """A store's address without a name or a password in it."""
    found = urlsplit(endpoint)
    return f"{found.scheme}://{found.netloc.rpartition('@')[2]}"


def broken_streams() -> tuple[type[Exception], ...]:
    """What reading an answer raises whose bytes stop coming."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError  # noqa: PLC0415

    return (HTTPClientError, IncompleteReadError)
