"""Who computes a plan, where, and where results are kept."""
