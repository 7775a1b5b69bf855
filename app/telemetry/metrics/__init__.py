"""Metrics: counters and histograms of events, and gauges that are read at each scrape.

Holds numbers under bounded labels: no key, user, prompt, size, address or text of an error. Observes and decides
nothing, and knows no HTTP. Nothing of prometheus-client is imported before the first scrape. Begin with `families`,
which lists every metric.
"""
