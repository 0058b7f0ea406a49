// The durable part of a send, in the two forms that are compared.
import { randomUUID } from 'node:crypto';

const UNIQUE_VIOLATION = '23505';
const MEMBER = 'SELECT 1 FROM participants WHERE conversation_id = $1 AND user_id = $2';
const NEXT_SEQ = 'UPDATE conversations SET last_seq = last_seq + 1, updated_at = now() WHERE id = $1 RETURNING last_seq';
const MESSAGE = `
  INSERT INTO messages (id, conversation_id, seq, sender_id, content, client_message_id)
  VALUES ($1, $2, $3, $4, $5, $6) RETURNING created_at`;
const LARGE_GROUP = 100;
const CONVERSATIONS = `
  SELECT mine.conversation_id, (
    SELECT count(*) FROM participants WHERE conversation_id = mine.conversation_id
  ) <= ${LARGE_GROUP} AS is_small
  FROM participants mine WHERE user_id = $1`;
const OUTBOX = 'INSERT INTO outbox (event, payload) VALUES ($1, $2)';
const SENT_BEFORE = `
  SELECT id, seq, content, created_at FROM messages
  WHERE conversation_id = $1 AND sender_id = $2 AND client_message_id = $3`;

// All of it at once. A named statement is prepared once per connection.
const SEND = {
  name: 'send',
  text: `
    WITH member AS (
      SELECT 1 FROM participants WHERE conversation_id = $2 AND user_id = $3
    ), numbered AS (
      UPDATE conversations SET last_seq = last_seq + 1, updated_at = now()
      FROM member WHERE id = $2 RETURNING last_seq
    ), stored AS (
      INSERT INTO messages (id, conversation_id, seq, sender_id, content, client_message_id)
      SELECT $1, $2, last_seq, $3, $4, $5 FROM numbered RETURNING *
    ), queued AS (
      INSERT INTO outbox (event, payload)
      SELECT 'message.created', jsonb_build_object(
        'messageId', id, 'conversationId', conversation_id, 'seq', seq, 'senderId', sender_id,
        'content', content, 'createdAt', created_at)
      FROM stored
    )
    SELECT seq, created_at FROM stored`,
};

export const forms = { typical, tuned };

export class Forbidden extends Error {}

// All of a user's conversations, and those that are small enough for presence.
export async function conversationsOf(pool, userId) {
  const { rows } = await pool.query({ name: 'conversations', text: CONVERSATIONS, values: [userId] });
  const all = rows.map((row) => row.conversation_id);
  return { all, small: all.filter((_, place) => rows[place].is_small) };
}

export async function tellMaster(pool, event, payload) {
  await pool.query({ name: 'outbox', text: OUTBOX, values: [event, JSON.stringify(payload)] });
}

async function typical(pool, sent) {
  const { conversationId, senderId, content, clientMessageId } = sent;
  const client = await pool.connect();
  try {
    const member = await client.query(MEMBER, [conversationId, senderId]);
    if (!member.rowCount) throw new Forbidden();
    await client.query('BEGIN');
    try {
      const head = await client.query(NEXT_SEQ, [conversationId]);
      const { last_seq: seq } = head.rows[0];
      const id = randomUUID();
      const stored = await client.query(MESSAGE, [id, conversationId, seq, senderId, content, clientMessageId]);
      const message = view(sent, id, seq, stored.rows[0].created_at);
      await client.query(OUTBOX, ['message.created', JSON.stringify(message)]);
      await client.query('COMMIT');
      return { message, created: true };
    } catch (error) {
      await client.query('ROLLBACK');
      if (error.code !== UNIQUE_VIOLATION) throw error;
    }
  } finally {
    client.release();
  }
  return sentBefore(pool, sent);
}

async function tuned(pool, sent) {
  const id = randomUUID();
  const values = [id, sent.conversationId, sent.senderId, sent.content, sent.clientMessageId];
  try {
    const { rows } = await pool.query({ ...SEND, values });
    if (!rows.length) throw new Forbidden();
    return { message: view(sent, id, rows[0].seq, rows[0].created_at), created: true };
  } catch (error) {
    if (error.code !== UNIQUE_VIOLATION) throw error;
  }
  return sentBefore(pool, sent);
}

async function sentBefore(pool, sent) {
  const { rows } = await pool.query(SENT_BEFORE, [sent.conversationId, sent.senderId, sent.clientMessageId]);
  const [{ id, seq, content, created_at: createdAt }] = rows;
  return { message: view({ ...sent, content }, id, seq, createdAt), created: false };
}

function view({ conversationId, senderId, content, clientMessageId }, id, seq, createdAt) {
  return { id, conversationId, seq: Number(seq), senderId, content, clientMessageId, createdAt };
}
