"""Pulumi components: what the plan becomes in AWS."""
