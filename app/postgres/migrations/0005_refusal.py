from tortoise import migrations
from tortoise.migrations import operations as ops

# VOLATILE and in PL/pgSQL: what it reads is what is committed when it is called, not when the statement began.
CREATE = """
CREATE FUNCTION is_refused(varchar, bigint) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN EXISTS (SELECT 1 FROM users WHERE id = $1 AND refused_until >= $2);
END
$$
"""

DROP = "DROP FUNCTION is_refused(varchar, bigint)"

class Migration(migrations.Migration):
    dependencies = [('chat', '0004_webhooks')]

    initial = False

    operations = [ops.RunSQL(CREATE, reverse_sql=DROP)]
