"""The version: always that of the service whose API this client speaks."""

__version__ = "0.1.0"
