"""What one step computes: pure functions of a spec and of the results of other steps."""
