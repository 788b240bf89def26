"""Checks of recorded histories: linearizability, and ZooKeeper's promises (docs/simulation.md)."""
