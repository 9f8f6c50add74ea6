"""What authors of schemes and attacks and the harness agree on."""
