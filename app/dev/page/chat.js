// What this window knows: the conversations, their messages, and what is on its way.
//
// REST goes through the master, the socket straight to the chat service. The socket is connected first and the
// conversations are loaded after that, on every connection anew: so nothing is missed between the two.

import { connect } from './chat-client.js';
import { groupTitle } from './people.js';
import { Thread } from './thread.js';

const RELOAD_DELAY = 3000;

export class Chat {
  /** The conversations by id, as far as they are loaded. */
  conversations = new Map();
  /** Whether the list of conversations was loaded once. */
  loaded = false;
  #master;
  #client;
  #listeners;
  #threads = new Map();
  #withNews = new Set();
  #openId = null;
  #nextPage = undefined;
  #reload = null;
  // Counts the changes of the connection: what was asked for before one may lack what came after it.
  #era = 0;

  /**
   * @param {import('./master.js').Master} master logged in
   * @param {{ changed: () => void, failed: (message: string) => void, recovered: () => void,
   *   state: (state: string, reason?: string) => void }} listeners
   */
  constructor(master, listeners) {
    this.#master = master;
    this.#listeners = listeners;
    this.#client = connect(master.me.socketUrl, { token: master.tokens() });
    this.#client.on('state', (state, reason) => this.#changeState(state, reason));
    this.#client.on('message:new', (message) => this.#receive(message));
    this.#client.on('conversation:new', (conversation) => {
      this.#keep(conversation);
      listeners.changed();
    });
    this.#client.on('error', ({ message, event }) => {
      // A message that was refused says so itself.
      if (event !== 'message:send') {
        listeners.failed(message);
      }
    });
  }

  /** @returns {string} */
  get myId() {
    return this.#master.me.userId;
  }

  /** @returns {object | undefined} the open conversation, once it is loaded */
  get opened() {
    return this.conversations.get(this.#openId);
  }

  /** @returns {Thread} the messages of the open conversation */
  get thread() {
    return this.#threadOf(this.#openId);
  }

  /** @returns {boolean} whether there are more conversations than are loaded */
  get hasMore() {
    return this.#nextPage !== undefined;
  }

  /**
   * @param {string} id
   * @returns {boolean} whether something came into this conversation that was not seen
   */
  hasNews(id) {
    return this.#withNews.has(id);
  }

  close() {
    clearTimeout(this.#reload);
    this.#client.close();
  }

  /**
   * Open a conversation, maybe one that is not loaded yet.
   *
   * @param {string} id or nothing, to close what is open
   */
  open(id) {
    this.#openId = id;
    this.see();
    this.#completeOpened();
  }

  /** Note that the open conversation was looked at. */
  see() {
    this.#withNews.delete(this.#openId);
    this.#listeners.changed();
  }

  /**
   * Begin a conversation, or find the one that two people have.
   *
   * @param {string[]} participantIds
   * @param {string} title for a group; made of the names if there is none
   * @returns {Promise<string>} its id
   */
  async start(participantIds, title) {
    const others = participantIds.filter((userId) => userId !== this.myId);
    if (others.length === 0) {
      throw new Error('Type the name of somebody else.');
    }
    const group = { type: 'group', participantIds: others, title: title || groupTitle([this.myId, ...others]) };
    const direct = { type: 'direct', participantIds: others };
    const conversation = await this.#master.call('POST', '/conversations', others.length === 1 ? direct : group);
    this.#keep(conversation);
    return conversation.id;
  }

  async loadMoreConversations() {
    await this.#attempt(() => this.#loadPage({ limit: 100, cursor: this.#nextPage }));
    this.#listeners.changed();
  }

  /** Load the page before the messages of the open conversation, unless that is under way. */
  async loadOlder() {
    const { thread } = this;
    const { cursor } = thread;
    if (!cursor || thread.loading) {
      return;
    }
    await this.#loading(thread, async () => {
      const page = await this.#messages(this.#openId, { limit: 50, before: cursor });
      if (thread.cursor === cursor) {
        thread.addOlder(page, this.myId);
      }
    });
  }

  /**
   * Send a message to the open conversation.
   *
   * @param {string} content
   */
  say(content) {
    this.#send(this.#openId, { clientMessageId: newId(), content, createdAt: new Date().toISOString() });
  }

  /** @param {string} clientMessageId of a message to the open conversation that was not sent */
  sayAgain(clientMessageId) {
    const message = this.thread.outgoing.find((one) => one.clientMessageId === clientMessageId);
    this.#send(this.#openId, message);
  }

  /** @param {string} clientMessageId of a message to the open conversation that was not sent */
  discard(clientMessageId) {
    this.thread.removeOutgoing(clientMessageId);
    this.#listeners.changed();
  }

  #changeState(state, reason) {
    this.#era += 1;
    this.#threads.forEach((thread) => {
      thread.synced = false;
    });
    this.#listeners.state(state, reason);
    if (state === 'connected') {
      this.#sendWaiting();
      this.#load();
    }
  }

  async #load() {
    clearTimeout(this.#reload);
    const loaded = await this.#attempt(async () => {
      const before = [...this.conversations.keys()];
      const items = await this.#loadPage({ limit: 100 });
      if (!this.hasMore) {
        const listed = new Set(items.map(({ id }) => id));
        before.filter((id) => !listed.has(id)).forEach((id) => this.conversations.delete(id));
      }
      this.loaded = true;
      this.#listeners.recovered();
    });
    this.#listeners.changed();
    if (loaded) {
      this.#completeOpened();
    } else {
      this.#loadLater();
    }
  }

  /** The socket may be back before the rest is. */
  #loadLater() {
    clearTimeout(this.#reload);
    this.#reload = setTimeout(() => this.#client.state === 'connected' && this.#load(), RELOAD_DELAY);
  }

  async #loadPage(parameters) {
    const { items, nextCursor } = await this.#master.call('GET', `/conversations?${new URLSearchParams(parameters)}`);
    items.forEach((conversation) => this.#keep(conversation));
    this.#nextPage = nextCursor;
    return items;
  }

  #messages(id, parameters) {
    return this.#master.call('GET', `/conversations/${id}/messages?${new URLSearchParams(parameters)}`);
  }

  async #completeOpened() {
    const id = this.#openId;
    if (!this.conversations.has(id) || this.#threadOf(id).synced) {
      return;
    }
    const thread = this.#threadOf(id);
    const era = this.#era;
    const loaded = await this.#loading(thread, async () => {
      const page = await this.#messages(id, { limit: 50 });
      if (era === this.#era) {
        thread.addLatest(page, this.myId);
      }
    });
    if (!loaded) {
      this.#loadLater();
    }
  }

  async #loading(thread, act) {
    thread.loading = true;
    this.#listeners.changed();
    const loaded = await this.#attempt(act);
    thread.loading = false;
    this.#listeners.changed();
    return loaded;
  }

  #keep(conversation) {
    const held = this.conversations.get(conversation.id)?.lastMessage;
    const kept = { ...conversation };
    if (held && held.seq > (kept.lastMessage?.seq ?? 0)) {
      kept.lastMessage = held;
    } else if (held && held.seq < kept.lastMessage.seq) {
      this.#noteNews(kept.lastMessage);
    }
    this.conversations.set(kept.id, kept);
  }

  #noteNews({ conversationId, senderId }) {
    const seen = conversationId === this.#openId && document.visibilityState === 'visible';
    if (senderId !== this.myId && !seen) {
      this.#withNews.add(conversationId);
    }
  }

  async #receive(message) {
    const { conversationId } = message;
    this.#threadOf(conversationId).add(message, message.senderId === this.myId);
    if (!this.conversations.has(conversationId)) {
      await this.#attempt(async () => this.#keep(await this.#master.call('GET', `/conversations/${conversationId}`)));
    }
    const conversation = this.conversations.get(conversationId);
    if (conversation && message.seq > (conversation.lastMessage?.seq ?? 0)) {
      conversation.lastMessage = message;
      this.#noteNews(message);
    }
    this.#listeners.changed();
  }

  async #send(conversationId, message) {
    const thread = this.#threadOf(conversationId);
    const { clientMessageId, content } = message;
    thread.addOutgoing({ ...message, status: 'pending' });
    this.#listeners.changed();
    try {
      const answer = await this.#client.emit('message:send', { conversationId, content, clientMessageId });
      if (answer.ok) {
        await this.#receive(answer.message);
      } else {
        thread.addOutgoing({ ...message, status: 'failed', error: answer.error.message });
      }
    } catch (error) {
      // Whether it arrived or not: the id makes it one message however often it is sent.
      const status = error.code === 'DISCONNECTED' ? 'waiting' : 'failed';
      thread.addOutgoing({ ...message, status, error: error.message });
    }
    this.#listeners.changed();
  }

  #sendWaiting() {
    for (const [conversationId, thread] of this.#threads) {
      for (const message of thread.outgoing.filter(({ status }) => status === 'waiting')) {
        this.#send(conversationId, message);
      }
    }
  }

  #threadOf(id) {
    if (!this.#threads.has(id)) {
      this.#threads.set(id, new Thread());
    }
    return this.#threads.get(id);
  }

  async #attempt(act) {
    try {
      await act();
      return true;
    } catch (error) {
      this.#listeners.failed(error.message);
      return false;
    }
  }
}

function newId() {
  if (crypto.randomUUID) {
    return crypto.randomUUID();
  }
  // Browsers keep randomUUID from pages that come over plain HTTP from another machine.
  const bytes = [...crypto.getRandomValues(new Uint8Array(16))];
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('');
}
