"""The choice of the next deployment: order, weights, cooldowns, queues, and the verdict when none is left.

Decides and sends nothing; clock and randomness are passed in. Knows no dialect and no image. Begin with `failover`.
"""
