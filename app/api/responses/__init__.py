"""The way out: events are encoded as OpenAI's JSON, as server-sent events or as one image's bytes, and sent.

The encoders are pure. Knows neither runs nor providers. Begin with `sending`, which chooses the moment of the status
line.
"""
