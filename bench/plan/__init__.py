"""What must be computed: axes, cells, steps, and which source computes a step."""
