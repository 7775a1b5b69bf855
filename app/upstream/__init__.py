"""The wire to the providers: httpx's interface over aiohttp's connections, and downloads of linked images.

Alone in speaking HTTP to the outside. Knows no dialect and chooses no deployment. Begin with `client`.
"""
