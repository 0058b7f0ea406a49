"""A chat service that a host application runs beside its own product."""
