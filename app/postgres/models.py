"""Tortoise models of all tables; migrations are made from them.

What a send updates stands in `conversation_heads`, a narrow table whose changing columns no index names, so that
those updates stay HOT. A message is its own entry in the event log: `messages` is ordered by the same `seq`.
"""

from collections.abc import Sequence
from typing import Any

from tortoise import fields
from tortoise.fields.db_defaults import SqlDefault
from tortoise.indexes import Index
from tortoise.migrations.constraints import UniqueConstraint
from tortoise.models import Model


class TransactionIdField(fields.Field[int], int):
    """The id of the writing transaction, by which pods find what was committed since they last looked."""

    SQL_TYPE = "XID8"


class PartialIndex(Index):
    """An index of the rows that fulfil a condition."""

    def __init__(self, *, fields: Sequence[str], name: str, where: str) -> None:
        super().__init__(fields=tuple(fields), name=name)
        self.extra = f" WHERE {where}"
        self.where = where

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        path, positional, named = super().deconstruct()
        return path, positional, {**named, "where": self.where}


class Conversation(Model):
    """A direct conversation of two people, or a group."""

    id = fields.UUIDField(primary_key=True)
    type = fields.CharField(max_length=6)
    title = fields.CharField(max_length=200, null=True)
    metadata: dict[str, object] = fields.JSONField()
    created_by = fields.CharField(max_length=128)
    owner_id = fields.CharField(max_length=128, null=True)
    # The pair of a direct conversation, in order, so that the database keeps it single.
    direct_low = fields.CharField(max_length=128, null=True)
    direct_high = fields.CharField(max_length=128, null=True)
    # The Idempotency-Key of a group, and a digest of what was first asked for under it.
    creation_key = fields.CharField(max_length=128, null=True)
    fingerprint = fields.BinaryField(null=True)
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()

    class Meta:
        table = "conversations"
        unique_together = (("direct_low", "direct_high"),)
        indexes = (Index(fields=("type", "id"), name="conversations_by_type"),)
        constraints = (
            UniqueConstraint(
                fields=("created_by", "creation_key"),
                name="conversations_created_once",
                condition="creation_key IS NOT NULL",
            ),
        )


class ConversationHead(Model):
    """What changes with each message; its row is the lock under which `seq` is given."""

    conversation_id = fields.UUIDField(primary_key=True)
    last_seq = fields.BigIntField()
    # 0 where there is no message yet.
    last_message_seq = fields.BigIntField()
    # The last message, or the creation.
    activity_at = fields.DatetimeField()
    # Whether one of the two has hidden this direct conversation since its last message.
    is_hidden = fields.BooleanField(db_default=False)

    class Meta:
        table = "conversation_heads"


class Participant(Model):
    """That a user is in a conversation, and how far they have read."""

    id = fields.BigIntField(primary_key=True, generated=True)
    conversation_id = fields.UUIDField()
    user_id = fields.CharField(max_length=128)
    role = fields.CharField(max_length=6)
    joined_at = fields.DatetimeField()
    last_read_seq = fields.BigIntField()
    last_read_at = fields.DatetimeField(null=True)
    # Hidden from this user's list until a message comes after this seq.
    hidden_seq = fields.BigIntField(null=True)

    class Meta:
        table = "participants"
        unique_together = (("conversation_id", "user_id"),)
        indexes = (
            Index(fields=("user_id", "conversation_id"), name="participants_by_user"),
            Index(fields=("conversation_id", "joined_at", "user_id"), name="participants_by_standing"),
        )


class Message(Model):
    """One message, at the place in its conversation that `seq` gives it."""

    id = fields.UUIDField(primary_key=True)
    conversation_id = fields.UUIDField()
    seq = fields.BigIntField()
    sender_id = fields.CharField(max_length=128)
    content = fields.TextField()
    attachments: list[object] = fields.JSONField()
    client_message_id = fields.CharField(max_length=128, null=True)
    # A digest of what was first sent, to tell a repeated send from another message under the same id.
    fingerprint = fields.BinaryField(null=True)
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()
    deleted_at = fields.DatetimeField(null=True)
    xid = TransactionIdField(db_default=SqlDefault("pg_current_xact_id()"))

    class Meta:
        table = "messages"
        unique_together = (("conversation_id", "seq"),)
        indexes = (
            Index(fields=("xid",), name="messages_by_transaction"),
            PartialIndex(
                fields=("conversation_id", "sender_id", "seq"),
                name="messages_by_sender",
                where="deleted_at IS NULL",
            ),
        )
        constraints = (
            UniqueConstraint(
                fields=("conversation_id", "sender_id", "client_message_id"),
                name="messages_sent_once",
                condition="client_message_id IS NOT NULL",
            ),
        )


class LoggedEvent(Model):
    """A durable change other than a new message, at the place in its conversation that `seq` gives it.

    The content of a message never stands here: `message_id` refers to it, so that a deletion is one of all places.
    """

    id = fields.BigIntField(primary_key=True, generated=True)
    conversation_id = fields.UUIDField()
    seq = fields.BigIntField()
    event = fields.CharField(max_length=24)
    message_id = fields.UUIDField(null=True)
    data: dict[str, object] | None = fields.JSONField(null=True)
    created_at = fields.DatetimeField(db_default=SqlDefault("clock_timestamp()"))
    xid = TransactionIdField(db_default=SqlDefault("pg_current_xact_id()"))

    class Meta:
        table = "events"
        unique_together = (("conversation_id", "seq"),)
        indexes = (
            Index(fields=("xid",), name="events_by_transaction"),
            Index(fields=("created_at",), name="events_by_age"),
        )


class Reaction(Model):
    """What a user feels about a message."""

    id = fields.BigIntField(primary_key=True, generated=True)
    message_id = fields.UUIDField()
    emoji = fields.CharField(max_length=64)
    user_id = fields.CharField(max_length=128)

    class Meta:
        table = "reactions"
        unique_together = (("message_id", "emoji", "user_id"),)


class User(Model):
    """A profile as the master synced it, or the memory that it was deleted."""

    id = fields.CharField(max_length=128, primary_key=True)
    display_name = fields.CharField(max_length=200)
    avatar_url = fields.CharField(max_length=2048, null=True)
    metadata: dict[str, object] = fields.JSONField()
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()
    deleted_at = fields.DatetimeField(null=True)
    # Seconds since 1970: tokens issued up to then are refused for good, also after a new sync.
    refused_until = fields.BigIntField(null=True)

    class Meta:
        table = "users"


class FormerParticipant(Model):
    """That a user was in a conversation once: there are messages of theirs, should all of them be erased."""

    id = fields.BigIntField(primary_key=True, generated=True)
    user_id = fields.CharField(max_length=128)
    conversation_id = fields.UUIDField()

    class Meta:
        table = "former_participants"
        unique_together = (("user_id", "conversation_id"),)


class Chore(Model):
    """A background job: work that takes long is done in small pieces, whatever restarts."""

    id = fields.BigIntField(primary_key=True, generated=True)
    kind = fields.CharField(max_length=24)
    subject = fields.CharField(max_length=128)
    leased_until = fields.DatetimeField(null=True)

    class Meta:
        table = "chores"
        unique_together = (("kind", "subject"),)


class Notice(Model):
    """What changed for people rather than in a conversation, kept an hour for pods that missed it on pub/sub."""

    id = fields.BigIntField(primary_key=True, generated=True)
    kind = fields.CharField(max_length=16)
    user_id = fields.CharField(max_length=128, null=True)
    conversation_id = fields.UUIDField(null=True)
    created_at = fields.DatetimeField(db_default=SqlDefault("clock_timestamp()"))
    xid = TransactionIdField(db_default=SqlDefault("pg_current_xact_id()"))

    class Meta:
        table = "notices"
        indexes = (
            Index(fields=("xid",), name="notices_by_transaction"),
            Index(fields=("created_at",), name="notices_by_age"),
        )


class Webhook(Model):
    """A webhook to the master: a row of the outbox, written by the transaction that makes the change.

        new ── first attempt, in the order of `seq` ──▶ delivered
         └── failed ──▶ due ── attempts by the schedule ──▶ delivered, or dead ── replayed ──▶ due

    No content of a message is copied here. Without a conversation it is about a user's presence, of which there
    is at most one undelivered per user; `seq` is the number of the transition then.
    """

    id = fields.UUIDField(primary_key=True)
    event = fields.CharField(max_length=24)
    conversation_id = fields.UUIDField(null=True)
    seq = fields.BigIntField()
    # Who did it.
    user_id = fields.CharField(max_length=128)
    message_id = fields.UUIDField(null=True)
    data: dict[str, object] | None = fields.JSONField(null=True)
    traceparent = fields.CharField(max_length=55, null=True)
    created_at = fields.DatetimeField()
    # Not tried any more after this.
    expires_at = fields.DatetimeField(null=True)
    state = fields.CharField(max_length=9, db_default="new")
    attempts = fields.IntField(db_default=0)
    # The place in the schedule of retries.
    step = fields.IntField(db_default=0)
    # The next attempt, or the end of the lease where a worker has one.
    due_at = fields.DatetimeField(db_default=SqlDefault("clock_timestamp()"))
    # The claim that leased it: made anew by each, so that nothing late is taken for a later one's.
    lease = fields.UUIDField(null=True)
    last_status_code = fields.IntField(null=True)
    last_error = fields.CharField(max_length=200, null=True)
    delivered_at = fields.DatetimeField(null=True)

    class Meta:
        table = "webhooks"
        indexes = (
            PartialIndex(fields=("conversation_id", "seq"), name="webhooks_in_order", where="state = 'new'"),
            PartialIndex(fields=("due_at",), name="webhooks_by_due_time", where="state = 'due'"),
            Index(fields=("state", "id"), name="webhooks_by_state"),
            PartialIndex(fields=("user_id", "seq"), name="webhooks_of_presence", where="conversation_id IS NULL"),
        )
        constraints = (
            UniqueConstraint(
                fields=("user_id",),
                name="webhooks_one_presence_per_user",
                condition="conversation_id IS NULL AND state = 'due'",
            ),
        )
