"""The account: an AWS API endpoint on loopback, moto's services with an EC2 of ours on top.

boto3, Terraform and Pulumi see one account (id 123456789012) that keeps its state over restarts,
enforces IAM from the first request and refuses what EC2 refuses, with EC2's own codes.
"""
