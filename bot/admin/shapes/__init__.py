"""The bodies of the endpoint, exactly: what scripts from outside stand on. Fields may be added, none is renamed.

What comes in is checked here as far as its form goes, and becomes values of the domain; what goes out is made from
them. Instants go out in UTC.
"""
