"""The frames of WebSockets (RFC 6455, section 5), read and written without knowledge of sessions."""
