"""This machine in the part of the AWS account."""
