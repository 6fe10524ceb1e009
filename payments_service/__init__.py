"""Conva Payments: collects, proves and records the payments of many small businesses."""

import os

__version__ = "0.1.0"

# With it in the environment Stripe's SDK prints whole requests and answers past our log, webhook secrets included.
os.environ.pop("STRIPE_LOG", None)
