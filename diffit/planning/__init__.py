"""Before and after a run: plans, costs, preflight checks, accounting."""
