"""Image Gateway: the OpenAI Images API to the inside, each provider's own dialect to the outside.

Each package says in its docstring what it holds and what it refuses to know. Begin with `main`, then read
`gateway/gateway.py`.
"""
