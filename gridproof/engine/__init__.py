"""A query on workers: packets, commits, the event loop and the merge.

Knows datasets and workers, never the Grid: whoever needs a replica's address is given a callable.
"""
