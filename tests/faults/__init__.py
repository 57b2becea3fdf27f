"""The fault harness: a source that keeps changing, runs that are killed, and what must hold.

`simulated.py` is the connector, `world.py` what it reads, `ledger.py` what the dataset must equal,
`points.py` where a run can be killed, `forks.py` starts and kills runs, `campaign.py` draws from a
seed what happens to a dataset, and `__main__.py` replays a seed.
"""
