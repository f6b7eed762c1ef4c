"""Readers against servers that die, move and freeze at random: `python -m chaos --minutes 20`, from the root.

A nemesis does to real servers what befalls them in a bad year, writers make tables grow and shrink, readers
go through everything again and again, and a checker holds each iteration to the promise: every key that
exists from its beginning to its end is delivered, or an error names what is missing.

    history.py    everything that happens, as JSON lines on disk
    keyspace.py   the keys, and since when each has been there without a break
    sites.py      what is tried: one server behind a proxy, a primary under sentinels, a cluster
    nemesis.py    what befalls it
    subjects.py   the readers: ours and, as controls, those of others
    checker.py    the promise, and the verdict
"""
