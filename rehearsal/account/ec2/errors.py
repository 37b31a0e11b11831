"""EC2's errors: a code that programs read and a message for a person."""

from __future__ import annotations

from dataclasses import dataclass

from moto.ec2.exceptions import EC2ClientError


@dataclass(frozen=True)
class Refusal:
    """Why EC2 says no. code: one of EC2's documented error codes."""

    code: str
    message: str

    def error(self) -> EC2ClientError:
        """The exception that moto serializes as EC2's XML error with status 400."""
        return EC2ClientError(self.code, self.message)


def refuse(code: str, message: str) -> EC2ClientError:
    """An EC2 error to raise; status 400.

    Args:
        code: one of EC2's documented error codes.
        message: what was wrong and what follows, for a person.
    """
    return EC2ClientError(code, message)
