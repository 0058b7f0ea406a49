"""A chat service that a host application runs beside its own product."""

# The one place of the version: the package, the commands, both documents and the traces take it from here. The
# Dockerfile and the chart repeat it, and a test compares them.
__version__ = "0.1.0"
