"""All tables.

What a send updates stands in `conversation_heads`, a narrow table whose changing columns no index names, so that
those updates stay HOT. A message is its own entry in the event log: `messages` is ordered by the same `seq`.
"""

from tortoise import fields
from tortoise.fields.db_defaults import SqlDefault
from tortoise.indexes import Index
from tortoise.migrations.constraints import UniqueConstraint
from tortoise.models import Model


class TransactionIdField(fields.Field[int], int):
    """The id of the writing transaction, by which pods find what was committed since they last looked."""

    SQL_TYPE = "XID8"


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
    created_at = fields.DatetimeField()
    updated_at = fields.DatetimeField()

    class Meta:
        table = "conversations"
        unique_together = (("direct_low", "direct_high"),)


class ConversationHead(Model):
    """What changes with each message; its row is the lock under which `seq` is given."""

    conversation_id = fields.UUIDField(primary_key=True)
    last_seq = fields.BigIntField()
    # 0 where there is no message yet.
    last_message_seq = fields.BigIntField()
    # The last message, or the creation.
    activity_at = fields.DatetimeField()

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

    class Meta:
        table = "participants"
        unique_together = (("conversation_id", "user_id"),)
        indexes = (Index(fields=("user_id", "conversation_id"), name="participants_by_user"),)


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
        indexes = (Index(fields=("xid",), name="messages_by_transaction"),)
        constraints = (
            UniqueConstraint(
                fields=("conversation_id", "sender_id", "client_message_id"),
                name="messages_sent_once",
                condition="client_message_id IS NOT NULL",
            ),
        )
