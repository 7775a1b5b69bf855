"""OpenAI's admin API under `/v1/organization`, as the official SDKs' admin clients speak it: projects, keys, limits,
usage, costs, the audit log.

Paths, spelling and required members are those of the SDK's types. Refuses to know anything that OpenAI does not have:
that lies in `app.api.management`. Begin with `routes`.
"""
