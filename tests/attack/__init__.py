"""Everything that is known to hurt a gateway, at the same time, and ordinary callers beside it who must not notice.

`python -m tests.attack --minutes 30` prints the verdict; `test_attack.py` is the same for some seconds and asserts the
facts of it. Begin reading at `attacks.py`, the table.
"""
