"""Conva Payments: collects, proves and records the payments of many small businesses."""

__version__ = "0.1.0"
