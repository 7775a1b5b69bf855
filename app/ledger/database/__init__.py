"""The databases: SQLite without any set-up, and Postgres. One protocol, one schema, one suite of tests over both.

Each writes out the money path in its own SQL, without SQLAlchemy or Alembic. These serve the tables, the reports and
the migrations, and are imported when one of them is needed. Begin with `protocol`.
"""
