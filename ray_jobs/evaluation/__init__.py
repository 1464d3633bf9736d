"""What an evaluation consists of: one file per table, and what the tables share.

A table is a function from a :class:`~ray_jobs.evaluation.subject.Subject` to plain values;
``report.py`` turns those into pages, ``results.py`` keeps them so that a killed run goes on.
"""
