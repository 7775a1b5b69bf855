"""The models on offer: profiles, deployments, parameters, and whether a deployment fits a request.

Everything here is a value or a pure function over profiles, which are data. Knows no provider by name, and nothing of
cooldowns or queues. Begin with `models`, then read `fitting`, which holds the rules of requirements and hints.
"""
