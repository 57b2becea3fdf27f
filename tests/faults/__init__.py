"""The fault harness: a source that keeps changing, runs that are killed, and what must hold.

`simulated.py` is the connector, `world.py` what it reads, `ledger.py` what the dataset must equal,
`places.py` where that is, `points.py` where a process can be killed, `forks.py` starts and kills
them, `jobs.py` says which there are, `campaign.py` draws from a seed what happens to a dataset,
`tally.py` counts, and `__main__.py` replays a seed.
"""
