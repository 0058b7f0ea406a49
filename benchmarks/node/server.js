// The peer: the same service as a Node team would write it, with Socket.IO, Express and pg.
import { createSecretKey } from 'node:crypto';
import { createServer } from 'node:http';

import { createAdapter } from '@socket.io/redis-adapter';
import express from 'express';
import { Redis } from 'ioredis';
import jwt from 'jsonwebtoken';
import pg from 'pg';
import { Server } from 'socket.io';

import { Forbidden, conversationsOf, forms, tellMaster } from './store.js';

const POOL_SIZE = 16;
const MOST_CHARACTERS = 8000;
const GRACE_MS = 3000;
const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const { AUTH_JWT_SECRET, AUTH_JWT_ISSUER, DATABASE_URL, REDIS_URL, HTTP_PORT, WS_PORT, FORM } = process.env;
// Given a string, jsonwebtoken would try to read it as a public key at each call, which takes half a millisecond.
const key = createSecretKey(Buffer.from(AUTH_JWT_SECRET));
const store = forms[FORM];
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: POOL_SIZE });

function actorOf(token) {
  const { sub, permissions = [] } = jwt.verify(token, key, { algorithms: ['HS256'], issuer: AUTH_JWT_ISSUER });
  return { userId: sub, permissions };
}

function mustBeAllowed(actor, permission) {
  if (!actor.permissions.includes(permission)) throw new Forbidden();
}

function checked({ content, clientMessageId = null } = {}, conversationId, senderId) {
  const isText = typeof content === 'string' && content.length >= 1 && content.length <= MOST_CHARACTERS;
  const isKey = clientMessageId === null || (typeof clientMessageId === 'string' && clientMessageId.length <= 128);
  const isId = typeof conversationId === 'string' && ID.test(conversationId);
  return isText && isKey && isId ? { conversationId, senderId, content, clientMessageId } : null;
}

// Sockets

const sockets = createServer();
const io = new Server(sockets, { serveClient: false });
const publisher = new Redis(REDIS_URL);
// Both forms run beside each other: neither shall hear what the other one publishes.
io.adapter(createAdapter(publisher, publisher.duplicate(), { key: `socket.io-${FORM}` }));

// What the first request held is not needed again; Socket.IO's own advice for memory.
io.engine.on('connection', (connection) => {
  connection.request = null;
});

io.use(async (socket, next) => {
  try {
    socket.data.actor = actorOf(socket.handshake.auth.token);
    mustBeAllowed(socket.data.actor, 'chat:read');
    socket.data.conversations = await conversationsOf(pool, socket.data.actor.userId);
    next();
  } catch {
    next(new Error('unauthorized'));
  }
});

io.on('connection', (socket) => {
  const { actor, conversations } = socket.data;
  socket.join(conversations.all);
  count(socket.data, 1, 'user:online');
  socket.on('disconnect', () => setTimeout(() => count(socket.data, -1, 'user:offline'), GRACE_MS));
  socket.on('message:send', async (payload, acknowledge) => {
    try {
      mustBeAllowed(actor, 'chat:write');
      const sent = checked(payload, payload?.conversationId, actor.userId);
      if (!sent) return acknowledge?.({ ok: false, error: { code: 'VALIDATION_ERROR' } });
      const { message } = await send(sent);
      acknowledge?.({ ok: true, message });
    } catch (error) {
      acknowledge?.({ ok: false, error: { code: codeOf(error) } });
    }
  });
});

// How many sockets a user has on all servers; those who share a small conversation hear of the first and of the last.
async function count({ actor, conversations }, by, event) {
  try {
    const sockets = await publisher.hincrby(`online:${FORM}`, actor.userId, by);
    const turned = by > 0 ? sockets === 1 : sockets === 0;
    if (!turned) return;
    await tellMaster(pool, event.replace(':', '.'), { userId: actor.userId });
    if (conversations.small.length) io.to(conversations.small).emit(event, { userId: actor.userId });
  } catch (error) {
    console.error(error);
  }
}

async function send(sent) {
  const { message, created } = await store(pool, sent);
  if (created) io.to(message.conversationId).emit('message:new', message);
  return { message, created };
}

function codeOf(error) {
  if (error instanceof Forbidden) return 'FORBIDDEN';
  console.error(error);
  return 'INTERNAL_ERROR';
}

// REST

const app = express();
app.disable('x-powered-by');
app.disable('etag');
app.get('/health/ready', async (request, response) => {
  await pool.query('SELECT 1');
  response.json({ ready: true });
});
app.post('/api/conversations/:id/messages', express.json(), authenticated, async (request, response) => {
  mustBeAllowed(request.actor, 'chat:write');
  const sent = checked(request.body, request.params.id, request.actor.userId);
  if (!sent) return response.status(400).json({ code: 'VALIDATION_ERROR' });
  const { message, created } = await send(sent);
  response.status(created ? 201 : 200).json(message);
});
app.use((error, request, response, next) => {
  const code = codeOf(error);
  response.status(code === 'FORBIDDEN' ? 403 : 500).json({ code });
});

function authenticated(request, response, next) {
  try {
    request.actor = actorOf(request.headers.authorization?.slice('Bearer '.length));
    next();
  } catch {
    response.status(401).json({ code: 'UNAUTHORIZED' });
  }
}

sockets.listen(Number(WS_PORT), '127.0.0.1');
app.listen(Number(HTTP_PORT), '127.0.0.1');
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => process.exit(0));
