"""Runners: engines, worker processes, and what they need to start."""
