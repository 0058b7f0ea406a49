"""How fast the service is beside a peer in Node that does the same durable work: `make bench`."""
