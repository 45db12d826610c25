"""Jobs: whole pieces of work, from settings to results, for the command line and for Python alike.

A job returns or raises; it never prints and never exits.
"""
