"""What user data carries to a node: the fetcher and the unit of the agent."""
