# One node as this project makes it: VPC, group with rules, primary interface, template, instance.
variable "cidr" { type = string }
variable "instance_type" { type = string }
variable "efa_cards" {
  type    = number
  default = 0
}
variable "user_data" {
  type    = string
  default = "#cloud-config\n"
}
terraform {
  required_providers { aws = { source = "hashicorp/aws" } }
}
provider "aws" {
  region                  = "us-east-1"
  max_retries             = 3
  skip_metadata_api_check = true
  s3_use_path_style       = true
  default_tags { tags = { "moe-serving:stack" = "tf" } }
}
data "aws_ssm_parameter" "debian" { name = "/aws/service/debian/release/13/latest/amd64" }
resource "aws_vpc" "v" {
  cidr_block           = var.cidr
  enable_dns_hostnames = true
}
resource "aws_subnet" "s" {
  vpc_id            = aws_vpc.v.id
  cidr_block        = cidrsubnet(var.cidr, 8, 0)
  availability_zone = "us-east-1a"
}
resource "aws_security_group" "g" {
  name_prefix = "members"
  vpc_id      = aws_vpc.v.id
}
resource "aws_vpc_security_group_ingress_rule" "self" {
  security_group_id            = aws_security_group.g.id
  referenced_security_group_id = aws_security_group.g.id
  ip_protocol                  = "-1"
}
resource "aws_vpc_security_group_ingress_rule" "api" {
  security_group_id = aws_security_group.g.id
  cidr_ipv4         = "198.18.0.0/15"
  ip_protocol       = "tcp"
  from_port         = 8000
  to_port           = 8000
}
resource "aws_vpc_security_group_egress_rule" "all" {
  security_group_id = aws_security_group.g.id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}
resource "aws_network_interface" "primary" {
  subnet_id       = aws_subnet.s.id
  security_groups = [aws_security_group.g.id]
  description     = "primary of a node"
}
resource "aws_placement_group" "p" {
  name     = "tf"
  strategy = "cluster"
}
resource "aws_iam_role" "node" {
  name_prefix = "node"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole",
    Principal = { Service = "ec2.amazonaws.com" } }]
  })
}
resource "aws_iam_instance_profile" "node" { role = aws_iam_role.node.name }
resource "aws_launch_template" "t" {
  name_prefix                          = "node"
  image_id                             = data.aws_ssm_parameter.debian.insecure_value
  instance_type                        = var.instance_type
  user_data                            = base64encode(var.user_data)
  instance_initiated_shutdown_behavior = "terminate"
  iam_instance_profile { arn = aws_iam_instance_profile.node.arn }
  metadata_options {
    http_tokens                 = "required"
    http_endpoint               = "enabled"
    http_put_response_hop_limit = 2
    instance_metadata_tags      = "enabled"
  }
  placement { group_name = aws_placement_group.p.name }
  network_interfaces {
    device_index         = 0
    network_interface_id = aws_network_interface.primary.id
  }
  dynamic "network_interfaces" {
    for_each = range(var.efa_cards)
    content {
      device_index          = 1
      network_card_index    = network_interfaces.value
      interface_type        = "efa-only"
      subnet_id             = aws_subnet.s.id
      security_groups       = [aws_security_group.g.id]
      delete_on_termination = true
    }
  }
  tag_specifications {
    resource_type = "volume"
    tags          = { "from" = "template" }
  }
}
resource "aws_instance" "i" {
  launch_template {
    id      = aws_launch_template.t.id
    version = "$Latest"
  }
  tags = { Name = "node" }
  # The provider hashes a template's user data twice when it plans (its issues 30825 and 39476).
  lifecycle { ignore_changes = [user_data] }
}
output "instance" { value = aws_instance.i.id }
output "address" { value = aws_network_interface.primary.private_ip }
