"""What the EC2 resources share: looking one thing up, and API parameters of properties."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rehearsal.provider import errors, shapes

if TYPE_CHECKING:
    from collections.abc import Callable

    from rehearsal.provider.resource import Call


def find(call: Call, operation: str, field: str, **query: Any) -> dict[str, Any] | None:
    """The one thing that a describe call answers, None where there is none.

    Args:
        call: the operation.
        operation: boto3's method, such as `describe_vpcs`.
        field: where the answer has the list.
        query: parameters that pick one thing.
    """
    try:
        found = getattr(call.client("ec2"), operation)(**query)[field]
    except Exception as error:
        if errors.gone(error):
            return None
        raise
    return found[0] if found else None


def parameters(
    call: Call,
    operation: str,
    properties: dict[str, Any],
    renames: shapes.Renames | None = None,
    lists: shapes.Lists | None = None,
) -> dict[str, Any]:
    """Parameters of an EC2 operation (`RunInstances`), typed by botocore's model."""
    model = call.client("ec2").meta.service_model.operation_model(operation)
    return shapes.to_api(properties, model.input_shape, renames, lists)


def delete_when_free(call: Call, delete: Callable[[], Any], *busy: str) -> None:
    """Delete something, and try again as long as AWS says that others still use it.

    Args:
        call: the operation; its time limit ends the attempts.
        delete: the call.
        busy: AWS's codes for "in use".
    """
    try:
        call.retry(delete, lambda error: errors.code(error) in busy, seconds=float("inf"))
    except Exception as error:
        if not errors.gone(error):
            raise
