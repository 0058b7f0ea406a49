from tortoise import migrations
from tortoise.migrations import operations as ops
import functools
from app.postgres.models import PartialIndex, TransactionIdField
from json import dumps, loads
from tortoise.fields.db_defaults import SqlDefault
from tortoise import fields
from tortoise.indexes import Index
from tortoise.migrations.constraints import UniqueConstraint

class Migration(migrations.Migration):
    dependencies = [('chat', '0001_initial')]

    initial = False

    operations = [
        ops.CreateModel(
            name='Chore',
            fields=[
                ('id', fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ('kind', fields.CharField(max_length=24)),
                ('subject', fields.CharField(max_length=128)),
                ('leased_until', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'chores', 'app': 'chat', 'unique_together': (('kind', 'subject'),), 'pk_attr': 'id', 'table_description': 'Work that takes long and goes on in the background, in small pieces, whatever restarts.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='FormerParticipant',
            fields=[
                ('id', fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ('user_id', fields.CharField(max_length=128)),
                ('conversation_id', fields.UUIDField()),
            ],
            options={'table': 'former_participants', 'app': 'chat', 'unique_together': (('user_id', 'conversation_id'),), 'pk_attr': 'id', 'table_description': 'That a user was in a conversation once: there are messages of theirs, should all of them be erased.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='LoggedEvent',
            fields=[
                ('id', fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ('conversation_id', fields.UUIDField()),
                ('seq', fields.BigIntField()),
                ('event', fields.CharField(max_length=24)),
                ('message_id', fields.UUIDField(null=True)),
                ('data', fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('created_at', fields.DatetimeField(db_default=SqlDefault('clock_timestamp()'), auto_now=False, auto_now_add=False)),
                ('xid', TransactionIdField(db_default=SqlDefault('pg_current_xact_id()'), generated=False, null=False, unique=False)),
            ],
            options={'table': 'events', 'app': 'chat', 'unique_together': (('conversation_id', 'seq'),), 'indexes': [Index(fields=['xid'], name='events_by_transaction'), Index(fields=['created_at'], name='events_by_age')], 'pk_attr': 'id', 'table_description': 'A durable change other than a new message, at the place in its conversation that `seq` gives it.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='Reaction',
            fields=[
                ('id', fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ('message_id', fields.UUIDField()),
                ('emoji', fields.CharField(max_length=64)),
                ('user_id', fields.CharField(max_length=128)),
            ],
            options={'table': 'reactions', 'app': 'chat', 'unique_together': (('message_id', 'emoji', 'user_id'),), 'pk_attr': 'id', 'table_description': 'What a user feels about a message.'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='User',
            fields=[
                ('id', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=128)),
                ('display_name', fields.CharField(max_length=200)),
                ('avatar_url', fields.CharField(null=True, max_length=2048)),
                ('metadata', fields.JSONField(encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('updated_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('deleted_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('refused_until', fields.BigIntField(null=True)),
            ],
            options={'table': 'users', 'app': 'chat', 'pk_attr': 'id', 'table_description': 'A profile as the master synced it, or the memory that it was deleted.'},
            bases=['Model'],
        ),
        ops.AddField(
            model_name='Conversation',
            name='creation_key',
            field=fields.CharField(null=True, max_length=128),
        ),
        ops.AddField(
            model_name='Conversation',
            name='fingerprint',
            field=fields.BinaryField(null=True),
        ),
        ops.AddConstraint(
            model_name='Conversation',
            constraint=UniqueConstraint(fields=('created_by', 'creation_key'), name='conversations_created_once', condition='creation_key IS NOT NULL'),
        ),
        ops.AddField(
            model_name='ConversationHead',
            name='is_hidden',
            field=fields.BooleanField(db_default=False),
        ),
        ops.AddField(
            model_name='Participant',
            name='hidden_seq',
            field=fields.BigIntField(null=True),
        ),
        ops.AddIndex(
            model_name='Conversation',
            index=Index(fields=['type', 'id'], name='conversations_by_type'),
        ),
        ops.AddIndex(
            model_name='Participant',
            index=Index(fields=['conversation_id', 'joined_at', 'user_id'], name='participants_by_standing'),
        ),
        ops.AddIndex(
            model_name='Message',
            index=PartialIndex(fields=['conversation_id', 'sender_id', 'seq'], name='messages_by_sender', where='deleted_at IS NULL'),
        ),
    ]
