"""The migrations, in their order; `upgrades` runs those that a database lacks.

A migration stays as it is once it was released. A change of `tables` needs a new one, the two files of the schema anew
(`python -m scripts.schema`), and its number as `HEAD` in `schema`. Tests compare all of them. Begin with `0001_book`.
"""
