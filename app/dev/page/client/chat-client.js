// A client of the chat service for browsers and Node, without dependencies: this folder is all of it.
//
// What it holds of a conversation is one number, the `seq` up to which every change was handed on. A change that
// comes again is dropped; where one is missing, after a reconnect or not, `sync` brings what lies between. So each
// change comes once and in order, whatever the network does. Types and words are in chat-client.d.ts.

import { backoff, ChatError, Connection } from './connection.js';
import { Outbox } from './outbox.js';
import { io as overWebSocket } from './web-socket.js';

const SYNC_BATCH = 200;
// How wrong the clock of this machine may be.
const CLOCK_MARGIN = 5 * 60_000;
// Whoever gets one of these of a conversation is in it no more, or never was.
const GONE = new Set(['FORBIDDEN', 'NOT_FOUND', 'VALIDATION_ERROR']);

export { ChatError };

export class ChatClient {
  #connection;
  #outbox;
  #listeners = new Map();
  #state = 'closed';
  // By conversation: up to which `seq` changes were handed on, and which were heard of beyond a gap.
  #held = new Map();
  #heard = new Map();
  #behind = new Set();
  #connectedAt = null;
  #since = null;
  #isCatchingUp = false;

  constructor({ url, getToken, io = overWebSocket }) {
    this.#connection = new Connection({ url, getToken, io }, {
      changed: (state, reason) => this.#changeState(state, reason),
      heard: (event, data) => this.#hear(event, data),
    });
    this.#outbox = new Outbox(this.#connection, (outgoing) => this.#dispatch('outgoing', outgoing));
  }

  get state() {
    return this.#state;
  }

  connect() {
    if (this.#state === 'closed' || this.#state === 'refused') {
      this.#connection.open();
    }
  }

  close() {
    this.#connection.close();
    this.#outbox.close();
  }

  on(event, listener) {
    if (!this.#listeners.has(event)) {
      this.#listeners.set(event, new Set());
    }
    this.#listeners.get(event).add(listener);
    return () => this.#listeners.get(event).delete(listener);
  }

  emit(event, data = {}) {
    return this.#connection.emit(event, data);
  }

  track(conversationId, seq) {
    const held = this.#held.get(conversationId);
    if (held === undefined || seq < held) {
      this.#held.set(conversationId, seq);
    }
    if (held > seq) {
      this.#fillGap(conversationId, held);
    }
  }

  untrack(conversationId) {
    for (const kept of [this.#held, this.#heard, this.#behind]) {
      kept.delete(conversationId);
    }
  }

  send(conversationId, message) {
    return this.#outbox.add(conversationId, message);
  }

  outgoing(conversationId) {
    return this.#outbox.of(conversationId);
  }

  retry(clientMessageId) {
    return this.#outbox.retry(clientMessageId);
  }

  discard(clientMessageId) {
    this.#outbox.discard(clientMessageId);
  }

  #changeState(state, reason) {
    if (state !== 'connected') {
      this.#enter(state, reason);
      return;
    }
    // What was entered during the last connection and missed counts too, so it is asked for since its beginning.
    this.#since ??= this.#connectedAt;
    this.#connectedAt = new Date(Date.now() - CLOCK_MARGIN).toISOString();
    this.#held.forEach((_, conversationId) => this.#behind.add(conversationId));
    this.#enter(this.#isBehind() ? 'syncing' : 'connected');
    this.#outbox.flush();
    this.#catchUp();
  }

  #hear(event, data) {
    if (event === 'conversation:new' && !this.#held.has(data.id)) {
      this.#held.set(data.id, data.lastSeq);
    }
    if (event === 'conversation:deleted') {
      this.untrack(data.conversationId);
    }
    if (data.seq === undefined) {
      this.#dispatch(event, data);
    } else {
      this.#take(event, data);
    }
  }

  /** Hand on the change that is next; one that is held is dropped, and one beyond a gap has to wait. */
  #take(event, data) {
    const { conversationId, seq } = data;
    const next = (this.#held.get(conversationId) ?? seq - 1) + 1;
    if (seq === next) {
      this.#held.set(conversationId, seq);
      this.#dispatch(event, data);
    } else if (seq > next) {
      this.#fillGap(conversationId, seq);
    }
  }

  #fillGap(conversationId, seq) {
    this.#heard.set(conversationId, Math.max(seq, this.#heard.get(conversationId) ?? 0));
    this.#behind.add(conversationId);
    this.#catchUp();
  }

  #isBehind() {
    return this.#behind.size > 0 || this.#since !== null;
  }

  async #catchUp() {
    if (this.#isCatchingUp) {
      return;
    }
    this.#isCatchingUp = true;
    let failures = 0;
    while (this.#connection.isOpen && this.#isBehind()) {
      try {
        await this.#sync();
        failures = 0;
      } catch (error) {
        await new Promise((resolve) => setTimeout(resolve, error.details?.retryAfterMs ?? backoff(failures)));
        failures += 1;
      }
    }
    this.#isCatchingUp = false;
    if (this.#connection.isOpen) {
      this.#enter('connected');
    }
  }

  async #sync() {
    const ids = [...this.#behind].slice(0, SYNC_BATCH);
    const since = this.#since;
    const conversations = Object.fromEntries(ids.map((id) => [id, this.#held.get(id)]));
    const { events, joined } = await this.emit('sync', since ? { conversations, since } : { conversations });
    this.#since = null;
    const failed = ids.map((id) => this.#takePage(id, events[id])).find((error) => error);
    const unknown = joined.filter((id) => !this.#held.has(id));
    if (unknown.length > 0) {
      this.#dispatch('joined', { conversationIds: unknown });
    }
    if (failed) {
      throw new ChatError(failed);
    }
  }

  /** Gives the error that is worth another try. */
  #takePage(conversationId, { error, gap, items, lastSeq, hasMore }) {
    if (!this.#held.has(conversationId)) {
      return null;
    }
    if (error && !GONE.has(error.code)) {
      return error;
    }
    if (error) {
      this.untrack(conversationId);
      this.#dispatch('lost', { conversationId, error });
      return null;
    }
    if (gap) {
      this.#held.set(conversationId, lastSeq);
      this.#dispatch('gap', { conversationId, lastSeq });
    }
    items.forEach(({ event, data }) => this.#take(event, data));
    if (!hasMore && !(this.#heard.get(conversationId) > this.#held.get(conversationId))) {
      this.#behind.delete(conversationId);
      this.#heard.delete(conversationId);
    }
    return null;
  }

  #enter(state, reason) {
    if (state !== this.#state) {
      this.#state = state;
      this.#dispatch('state', { state, reason });
    }
  }

  #dispatch(event, data) {
    for (const listener of [...this.#listeners.get(event) ?? []]) {
      try {
        listener(data);
      } catch (error) {
        // A listener that fails is its owner's to mend, and no reason to lose what comes next.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
