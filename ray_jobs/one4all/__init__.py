"""The second suite: light models on frozen embeddings against heavy ones trained from scratch.

One4all sections 4 and 5 on real data: ``tasks.py`` says what is predicted, ``logs.py`` what raw
logs a Transformer reads, ``compare.py`` runs every model over every task; one file per table
beside them. ``report.py`` turns all into pages.
"""
