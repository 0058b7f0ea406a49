from tortoise import migrations
from tortoise.migrations import operations as ops
import functools
from app.postgres.models import PartialIndex
from json import dumps, loads
from tortoise.fields.db_defaults import SqlDefault
from uuid import uuid4
from tortoise import fields
from tortoise.indexes import Index
from tortoise.migrations.constraints import UniqueConstraint

class Migration(migrations.Migration):
    dependencies = [('chat', '0003_notices')]

    initial = False

    operations = [
        ops.CreateModel(
            name='Webhook',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('event', fields.CharField(max_length=24)),
                ('conversation_id', fields.UUIDField(null=True)),
                ('seq', fields.BigIntField()),
                ('user_id', fields.CharField(max_length=128)),
                ('message_id', fields.UUIDField(null=True)),
                ('data', fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(',', ':')), decoder=loads)),
                ('traceparent', fields.CharField(null=True, max_length=55)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('expires_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ('state', fields.CharField(db_default='new', max_length=9)),
                ('attempts', fields.IntField(db_default=0)),
                ('step', fields.IntField(db_default=0)),
                ('due_at', fields.DatetimeField(db_default=SqlDefault('clock_timestamp()'), auto_now=False, auto_now_add=False)),
                ('lease', fields.UUIDField(null=True)),
                ('last_status_code', fields.IntField(null=True)),
                ('last_error', fields.CharField(null=True, max_length=200)),
                ('delivered_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'webhooks', 'app': 'chat', 'indexes': [PartialIndex(fields=['conversation_id', 'seq'], name='webhooks_in_order', where="state = 'new'"), PartialIndex(fields=['due_at'], name='webhooks_by_due_time', where="state = 'due'"), Index(fields=['state', 'id'], name='webhooks_by_state'), PartialIndex(fields=['user_id', 'seq'], name='webhooks_of_presence', where='conversation_id IS NULL')], 'pk_attr': 'id', 'table_description': 'What the master is to be told: a row of the outbox, written by the transaction that makes the change.'},
            bases=['Model'],
        ),
        ops.AddConstraint(
            model_name='Webhook',
            constraint=UniqueConstraint(fields=('user_id',), name='webhooks_one_presence_per_user', condition="conversation_id IS NULL AND state = 'due'"),
        ),
    ]
