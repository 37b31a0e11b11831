"""The Pulumi program: settings, plan, checks, resources, command line."""
