"""The internal API: what the master does with users, conversations and webhooks, by its shared secret."""
