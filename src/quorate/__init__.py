"""Quorate: a coordination service and a consensus laboratory in pure Python."""

__version__ = "0.1.0"
