from tortoise import migrations
from tortoise.migrations import operations as ops
import functools
from app.postgres.models import TransactionIdField
from json import dumps, loads
from tortoise.fields.db_defaults import SqlDefault
from uuid import uuid4
from tortoise import fields
from tortoise.indexes import Index
from tortoise.migrations.constraints import UniqueConstraint

class Migration(migrations.Migration):
    initial = True

    operations = [
        ops.CreateModel(
            name='Conversation',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('type', fields.CharField(max_length=6)),
                ('title', fields.CharField(null=True, max_length=200)),
                ('metadata', fields.JSONField(encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('created_by', fields.CharField(max_length=128)),
                ('owner_id', fields.CharField(null=True, max_length=128)),
                ('direct_low', fields.CharField(null=True, max_length=128)),
                ('direct_high', fields.CharField(null=True, max_length=128)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('updated_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'conversations', 'app': 'chat', 'unique_together': (('direct_low', 'direct_high'),), 'pk_attr': 'id', 'table_description': 'A direct conversation of two people, or a group.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='ConversationHead',
            fields=[
                ('conversation_id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('last_seq', fields.BigIntField()),
                ('last_message_seq', fields.BigIntField()),
                ('activity_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'conversation_heads', 'app': 'chat', 'pk_attr': 'conversation_id', 'table_description': 'What changes with each message; its row is the lock under which `seq` is given.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='Message',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('conversation_id', fields.UUIDField()),
                ('seq', fields.BigIntField()),
                ('sender_id', fields.CharField(max_length=128)),
                ('content', fields.TextField(unique=False)),
                ('attachments', fields.JSONField(encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('client_message_id', fields.CharField(null=True, max_length=128)),
                ('fingerprint', fields.BinaryField(null=True)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('updated_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('deleted_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('xid', TransactionIdField(db_default=SqlDefault('pg_current_xact_id()'), generated=False, null=False, unique=False)),
            ],
            options={'table': 'messages', 'app': 'chat', 'unique_together': (('conversation_id', 'seq'),), 'indexes': [Index(fields=['xid'], name='messages_by_transaction')], 'pk_attr': 'id', 'table_description': 'One message, at the place in its conversation that `seq` gives it.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='Participant',
            fields=[
                ('id', fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ('conversation_id', fields.UUIDField()),
                ('user_id', fields.CharField(max_length=128)),
                ('role', fields.CharField(max_length=6)),
                ('joined_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('last_read_seq', fields.BigIntField()),
                ('last_read_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'participants', 'app': 'chat', 'unique_together': (('conversation_id', 'user_id'),), 'indexes': [Index(fields=['user_id', 'conversation_id'], name='participants_by_user')], 'pk_attr': 'id', 'table_description': 'That a user is in a conversation, and how far they have read.'},
            bases=['Model'],
        ),
        # Not among the options of CreateModel, which leaves conditional constraints out of what it creates.
        ops.AddConstraint('Message', UniqueConstraint(fields=('conversation_id', 'sender_id', 'client_message_id'), name='messages_sent_once', condition='client_message_id IS NOT NULL')),
        # Room on each page for the new version of a row that every message updates: the updates stay HOT.
        ops.RunSQL('ALTER TABLE conversation_heads SET (fillfactor = 50)', ops.RunSQL.noop),
        ops.RunSQL('ALTER TABLE participants SET (fillfactor = 80)', ops.RunSQL.noop),
    ]
