"""The page of `networks.py`."""

def page(keys, rows): return ""
