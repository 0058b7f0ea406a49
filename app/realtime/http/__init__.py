"""HTTP of the socket listener: bounded requests, connections, and forwarding to the pod that holds a session."""
