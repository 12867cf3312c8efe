"""The configuration: its schema and checks, toy runs, lookups and the paths of results."""
