"""The gateway's own administration under `/v1/gateway`: drawings and their money, keys, budgets, prices, usage,
providers, the audit log, and the caller itself.

Holds everything that OpenAI's admin API does not know; `app.api.organization` has the rest. Begin with `routes`.
"""
