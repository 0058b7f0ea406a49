"""PostgreSQL: the pool, transactions, the watch, error classes, migrations, models, named statements, rows.

Promises: a transaction that is cancelled or fails at any await is rolled back and its connection given back; an
error is classified once, by SQLSTATE; a conflict that passes is retried. Never: a transaction held across a
network call to anything but PostgreSQL; a statement without an index that serves it.
"""
