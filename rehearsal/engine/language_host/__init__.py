"""A Pulumi language host for Python: the gRPC service through which the engine runs a program.

The module proxy doesn't serve the Go module of the original host, so this stands in its place.
It speaks pulumirpc.LanguageRuntime and runs programs with the original's executor script.
"""
