"""A whole Grid in simulated time, around the very decisions that a session's master takes.

Workers, links, storage elements and failures are modelled; who runs which entries, and what counts, is
decided by a real `gridproof.engine.query.Query`.
"""
