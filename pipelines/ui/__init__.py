"""A page in a browser that shows a dataset: its sources, runs, versions and documents."""
