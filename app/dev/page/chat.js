// What this window knows: the conversations, their messages, and what is on its way.
//
// REST goes through the master, the socket straight to the chat service. The socket is connected first and the
// conversations are loaded after that; each says up to which change it was loaded, and the client hands on all that
// came later, once and in order.

import { Attendance } from './attendance.js';
import { ChatClient } from './client/chat-client.js';
import { ConversationLoader } from './conversation-loader.js';
import { apply, applyReceipt } from './conversations.js';
import { groupTitle } from './people.js';
import { Thread } from './thread.js';

const RELOAD_DELAY = 3000;
const READ_PAUSE = 1000;
const CHANGES = [
  'message:new', 'message:updated', 'message:deleted', 'reaction:added', 'reaction:removed', 'participant:added',
  'participant:removed', 'conversation:updated',
];

export class Chat {
  /** The conversations by id, as far as they are loaded. */
  conversations = new Map();
  /** Whether the list of conversations was loaded once. */
  loaded = false;
  /** @type {Attendance} who is online, and who types */
  attendance;
  #master;
  #client;
  #listeners;
  #threads = new Map();
  #openId = null;
  #loader;
  #reload = null;
  #isReading = false;

  /**
   * @param {import('./master.js').Master} master logged in
   * @param {{ changed: () => void, failed: (message: string) => void, recovered: () => void,
   *   state: (state: string, reason?: string) => void }} listeners
   */
  constructor(master, listeners) {
    this.#master = master;
    this.#listeners = listeners;
    const client = new ChatClient({ url: master.me.socketUrl, getToken: master.tokens() });
    this.#client = client;
    this.#loader = new ConversationLoader(master, {
      loaded: (conversation) => this.#keep(conversation),
      gone: (id) => this.#forget(id),
      failed: listeners.failed,
    });
    this.attendance = new Attendance(client, listeners.changed);
    client.on('state', ({ state, reason }) => this.#changeState(state, reason));
    CHANGES.forEach((event) => client.on(event, (data) => this.#apply(event, data)));
    client.on('message:read', (receipt) => this.#applyReceipt(receipt));
    client.on('conversation:new', ({ id }) => this.#loader.refresh(id));
    client.on('joined', ({ conversationIds }) => conversationIds.forEach((id) => this.#loader.refresh(id)));
    client.on('gap', ({ conversationId }) => this.#startAfresh(conversationId));
    for (const event of ['lost', 'conversation:deleted', 'conversation:hidden']) {
      client.on(event, ({ conversationId }) => this.#forget(conversationId));
    }
    client.on('outgoing', ({ conversationId, message }) => {
      if (message) {
        this.#threadOf(conversationId).add(message);
      }
      listeners.changed();
    });
    client.on('error', ({ code, message, event }) => {
      // A message that was refused says so itself, and so does a call of this page.
      if (event === 'connect' && code !== 'UNAUTHORIZED') {
        listeners.failed(message);
      }
    });
    client.connect();
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

  /** @returns {object[]} what was written into the open conversation and is not stored yet */
  get outgoing() {
    return this.#client.outgoing(this.#openId);
  }

  /** @returns {boolean} whether there are more conversations than are loaded */
  get hasMore() {
    return this.#loader.hasMore;
  }

  close() {
    clearTimeout(this.#reload);
    this.#client.close();
  }

  /** @param {string} id of a conversation to open, maybe one that is not loaded yet; or nothing, to close it */
  open(id) {
    this.#openId = id;
    this.#listeners.changed();
    this.#completeOpened();
    this.see();
  }

  /** Note that the open conversation is looked at. */
  async see() {
    const conversation = this.opened;
    if (!conversation?.unreadCount || this.#isReading || document.visibilityState !== 'visible') {
      return;
    }
    this.#isReading = true;
    const isRead = await this.#attempt(async () => {
      const receipt = await this.#master.call('PUT', `/conversations/${conversation.id}/read`);
      applyReceipt(this.conversations.get(conversation.id) ?? conversation, { ...receipt, userId: this.myId }, this.myId);
      this.#listeners.changed();
    });
    // Something may have come in the meantime; the service tells others once a second at most.
    setTimeout(() => {
      this.#isReading = false;
      if (isRead) {
        this.see();
      }
    }, READ_PAUSE);
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
    await this.#attempt(() => this.#loader.loadMore());
  }

  /** Load the page before the messages of the open conversation, unless that is under way. */
  async loadOlder() {
    const { thread } = this;
    if (thread.cursor && !thread.loading) {
      await this.#loading(thread, { limit: 50, before: thread.cursor }, (page) => thread.addOlder(page));
    }
  }

  /**
   * Send a message to the open conversation.
   *
   * @param {string} content
   * @param {object[]} attachments
   */
  say(content, attachments) {
    this.attendance.said();
    // What becomes of it is shown where it stands.
    this.#client.send(this.#openId, { content, attachments }).catch(() => {});
  }

  /** @param {string} clientMessageId of a message that was not sent */
  sayAgain(clientMessageId) {
    this.#client.retry(clientMessageId).catch(() => {});
  }

  /** @param {string} clientMessageId of a message that was not sent */
  discard(clientMessageId) {
    this.#client.discard(clientMessageId);
    this.#listeners.changed();
  }

  /** @returns {Promise<boolean>} whether it is done; what went wrong is told */
  edit(messageId, content) {
    return this.#attempt(() => this.#client.emit('message:edit', { messageId, content }));
  }

  /** @returns {Promise<boolean>} */
  delete(messageId) {
    return this.#attempt(() => this.#client.emit('message:delete', { messageId }));
  }

  /**
   * React to a message, or take the reaction back.
   *
   * @param {object} message
   * @param {string} emoji
   * @returns {Promise<boolean>}
   */
  react({ id, reactions }, emoji) {
    const isMine = reactions.find((one) => one.emoji === emoji)?.userIds.includes(this.myId);
    const path = `/messages/${id}/reactions`;
    return this.#attempt(() => (isMine
      ? this.#master.call('DELETE', `${path}/${encodeURIComponent(emoji)}`)
      : this.#master.call('POST', path, { emoji })));
  }

  #changeState(state, reason) {
    this.#listeners.state(state, reason);
    if (state === 'connecting') {
      this.attendance.reset();
    } else if (state === 'syncing' || (state === 'connected' && !this.loaded)) {
      this.#load();
    }
  }

  #apply(event, data) {
    const { conversationId, userId } = data;
    this.#threadOf(conversationId).apply(event, data);
    const conversation = this.conversations.get(conversationId);
    if (event === 'participant:removed' && userId === this.myId) {
      this.#forget(conversationId);
    } else if (!conversation || apply(conversation, event, data, this.myId)) {
      this.#loader.refresh(conversationId);
    }
    this.#listeners.changed();
    this.see();
  }

  #applyReceipt(receipt) {
    const conversation = this.conversations.get(receipt.conversationId);
    if (conversation && applyReceipt(conversation, receipt, this.myId)) {
      this.#loader.refresh(conversation.id);
    }
    this.#listeners.changed();
  }

  async #startAfresh(id) {
    await this.#loader.refresh(id);
    this.#threads.delete(id);
    this.#completeOpened();
  }

  #forget(id) {
    this.conversations.delete(id);
    this.#threads.delete(id);
    this.#listeners.changed();
  }

  async #load() {
    clearTimeout(this.#reload);
    const isLoaded = await this.#attempt(async () => {
      await this.#loader.loadLatest([...this.conversations.keys()]);
      this.loaded = true;
      this.#listeners.recovered();
    });
    this.#listeners.changed();
    if (isLoaded) {
      this.#completeOpened();
    } else {
      this.#loadLater();
    }
  }

  /** The socket may be back before the rest is. */
  #loadLater() {
    clearTimeout(this.#reload);
    this.#reload = setTimeout(() => this.#load(), RELOAD_DELAY);
  }

  #keep(conversation) {
    this.conversations.set(conversation.id, conversation);
    this.#client.track(conversation.id, conversation.lastSeq);
    this.attendance.ask(conversation.participants.map(({ userId }) => userId));
    this.#listeners.changed();
    this.see();
  }

  async #completeOpened() {
    const conversation = this.opened;
    if (!conversation) {
      return;
    }
    if (conversation.participants.length < conversation.participantCount) {
      this.#loader.refresh(conversation.id);
    }
    const thread = this.#threadOf(conversation.id);
    if (!thread.loaded && !thread.loading) {
      const isLoaded = await this.#loading(thread, { limit: 50 }, (page) => thread.reset(page));
      if (!isLoaded) {
        this.#loadLater();
      }
    }
  }

  async #loading(thread, parameters, take) {
    thread.loading = true;
    this.#listeners.changed();
    const path = `/conversations/${this.#openId}/messages?${new URLSearchParams(parameters)}`;
    const isLoaded = await this.#attempt(async () => take(await this.#master.call('GET', path)));
    thread.loading = false;
    this.#listeners.changed();
    return isLoaded;
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
