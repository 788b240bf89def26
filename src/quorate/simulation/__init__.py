"""The simulator: whole nodes and clients on a simulated network, disk and clock, from one seed (docs/simulation.md)."""
