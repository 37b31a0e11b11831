"""What `make` does: set-up, `pulumi up` on this machine's account, its repair, and its end."""
