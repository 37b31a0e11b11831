"""A Pulumi provider named `aws`: turns resources into the API calls that pulumi-aws makes."""

from rehearsal.provider.install import install

__all__ = ["install"]
