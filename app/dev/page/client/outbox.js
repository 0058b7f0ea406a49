// Messages on their way: shown at once, sent in their order, and sent again until the service has answered.

import { backoff, ChatError } from './connection.js';

const MAX_OUTGOING = 1000;
// Whether it arrived or not: by its `clientMessageId` it is one message, however often it is sent.
const TRANSIENT = new Set(['DISCONNECTED', 'TIMEOUT', 'RATE_LIMITED', 'SERVICE_UNAVAILABLE', 'UNAUTHORIZED']);

export class Outbox {
  #connection;
  #changed;
  #entries = new Map();
  #busy = new Set();

  /**
   * @param {import('./connection.js').Connection} connection
   * @param {(outgoing: object) => void} changed is told of each message and of each change of its status
   */
  constructor(connection, changed) {
    this.#connection = connection;
    this.#changed = changed;
  }

  /** @returns {Promise<object>} the Message, once it is stored; see `ChatClient.send` */
  add(conversationId, { content, attachments = [], clientMessageId = newId() }) {
    if (this.#entries.size >= MAX_OUTGOING) {
      return Promise.reject(new ChatError({ code: 'QUEUE_FULL', message: 'Too many messages wait to be sent' }));
    }
    const createdAt = new Date().toISOString();
    const outgoing = { clientMessageId, conversationId, content, attachments, createdAt };
    return this.#start({ outgoing });
  }

  /** @returns {object[]} what of a conversation is not stored yet, in order */
  of(conversationId) {
    return this.#in(conversationId).map(({ outgoing }) => outgoing);
  }

  retry(clientMessageId) {
    const entry = this.#entries.get(clientMessageId);
    if (entry?.outgoing.status !== 'failed') {
      return Promise.reject(new ChatError({ code: 'NOT_FOUND', message: 'No such message has failed' }));
    }
    return this.#start(entry);
  }

  discard(clientMessageId) {
    if (this.#entries.get(clientMessageId)?.outgoing.status === 'failed') {
      this.#entries.delete(clientMessageId);
    }
  }

  /** Send what waits for the connection. */
  flush() {
    new Set([...this.#entries.values()].map(({ outgoing }) => outgoing.conversationId))
      .forEach((conversationId) => this.#run(conversationId));
  }

  /** Give up what waits. */
  close() {
    for (const entry of [...this.#entries.values()].filter(({ outgoing }) => outgoing.status !== 'failed')) {
      this.#fail(entry, new ChatError({ code: 'CLOSED', message: 'The client was closed' }));
    }
  }

  #in(conversationId) {
    return [...this.#entries.values()].filter(({ outgoing }) => outgoing.conversationId === conversationId);
  }

  #start(entry) {
    const { clientMessageId, conversationId } = entry.outgoing;
    const stored = new Promise((resolve, reject) => {
      Object.assign(entry, { resolve, reject });
    });
    this.#entries.set(clientMessageId, entry);
    this.#mark(entry, this.#connection.isOpen ? 'sending' : 'waiting');
    this.#run(conversationId);
    return stored;
  }

  /** Send one after the other: what has to be sent again is never overtaken. */
  async #run(conversationId) {
    if (this.#busy.has(conversationId)) {
      return;
    }
    this.#busy.add(conversationId);
    let failures = 0;
    let entry;
    const next = () => this.#in(conversationId).find(({ outgoing }) => outgoing.status !== 'failed');
    while (this.#connection.isOpen && (entry = next())) {
      this.#mark(entry, 'sending');
      const error = await this.#send(entry);
      failures = error ? failures + 1 : 0;
      if (error && this.#connection.isOpen) {
        await pause(error.details?.retryAfterMs ?? backoff(failures));
      }
    }
    this.#busy.delete(conversationId);
  }

  /** Gives what went wrong, where it is worth another try. */
  async #send(entry) {
    const { clientMessageId, conversationId, content, attachments } = entry.outgoing;
    try {
      const payload = { conversationId, content, attachments, clientMessageId };
      const { message } = await this.#connection.emit('message:send', payload);
      this.#entries.delete(clientMessageId);
      this.#mark(entry, 'sent', { message });
      entry.resolve(message);
      return null;
    } catch (error) {
      if (TRANSIENT.has(error.code) && entry.outgoing.status !== 'failed') {
        this.#mark(entry, 'waiting');
        return error;
      }
      this.#fail(entry, error);
      return null;
    }
  }

  #fail(entry, error) {
    this.#mark(entry, 'failed', { error });
    entry.reject(error);
  }

  #mark(entry, status, more = {}) {
    if (status !== entry.outgoing.status) {
      const { error: _, ...outgoing } = entry.outgoing;
      entry.outgoing = { ...outgoing, status, ...more };
      this.#changed(entry.outgoing);
    }
  }
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function newId() {
  // Browsers keep randomUUID from pages that come over plain HTTP from another machine.
  const bytes = [...crypto.getRandomValues(new Uint8Array(16))];
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
