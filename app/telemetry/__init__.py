"""What operators are told: log lines, metrics for Prometheus, traces, and messages about budgets.

Observes and decides nothing. Holds no prompt, no image and no credential unless the configuration allows it. Begin with
`logs`; `metrics/` counts the same.
"""
