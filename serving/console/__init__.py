"""The console: one page where a sentence becomes an audience, and two that list what is kept.

    install.install(app, secret)      # after ``app.state.targeting`` and ``.audiences`` are set

Pages are rendered here; what they ask later goes to ``/console/api``, which is the HTTP interface
itself with a session in place of a key (:mod:`serving.console.gate`), and to the few questions that
only a page has (:mod:`serving.console.asking`).
"""
