"""Where a job runs: engines, worker processes, and what they need to start."""
