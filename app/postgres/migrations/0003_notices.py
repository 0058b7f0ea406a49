from tortoise import migrations
from tortoise.migrations import operations as ops
from app.postgres.models import TransactionIdField
from tortoise.fields.db_defaults import SqlDefault
from tortoise import fields
from tortoise.indexes import Index

class Migration(migrations.Migration):
    dependencies = [('chat', '0002_rest_of_the_contract')]

    initial = False

    operations = [
        ops.CreateModel(
            name='Notice',
            fields=[
                ('id', fields.BigIntField(generated=True, primary_key=True, unique=True, db_index=True)),
                ('kind', fields.CharField(max_length=16)),
                ('user_id', fields.CharField(null=True, max_length=128)),
                ('conversation_id', fields.UUIDField(null=True)),
                ('created_at', fields.DatetimeField(db_default=SqlDefault('clock_timestamp()'), auto_now=False, auto_now_add=False)),
                ('xid', TransactionIdField(db_default=SqlDefault('pg_current_xact_id()'), generated=False, null=False, unique=False)),
            ],
            options={'table': 'notices', 'app': 'chat', 'indexes': [Index(fields=['xid'], name='notices_by_transaction'), Index(fields=['created_at'], name='notices_by_age')], 'pk_attr': 'id', 'table_description': 'What changed for people rather than in a conversation, kept an hour for the pods that missed the news.'},
            bases=['Model'],
        ),
    ]
