"""Who may do what: signatures, identity policies, bucket policies, trust policies."""
