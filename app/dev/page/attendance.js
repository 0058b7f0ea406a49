// Who is online and who types, as far as this window knows.

const MOST_ASKED = 200;
// The service lets typing lapse after 6 s, and tells; this is for when that is lost with the connection.
const LAPSE = 8000;
const REPEAT = 3000;

export class Attendance {
  #client;
  #changed;
  #online = new Set();
  #asked = new Set();
  #typing = new Map();
  #lastTold = { conversationId: null, at: 0 };

  /**
   * @param {import('./client/chat-client.js').ChatClient} client
   * @param {() => void} changed
   */
  constructor(client, changed) {
    this.#client = client;
    this.#changed = changed;
    client.on('user:online', ({ userId }) => this.#set(userId, true));
    client.on('user:offline', ({ userId }) => this.#set(userId, false));
    client.on('user:typing', (typing) => this.#setTyping(typing));
    client.on('message:new', ({ conversationId, senderId }) => {
      this.#setTyping({ conversationId, userId: senderId, isTyping: false });
    });
  }

  /** Forget everything: the connection is a new one. */
  reset() {
    this.#asked.clear();
    this.#typing.forEach((typists) => typists.forEach(clearTimeout));
    this.#typing.clear();
  }

  /** @param {string[]} userIds of people to ask for, once in a connection; from then on events tell */
  async ask(userIds) {
    const unknown = userIds.filter((userId) => !this.#asked.has(userId)).slice(0, MOST_ASKED);
    if (unknown.length === 0) {
      return;
    }
    unknown.forEach((userId) => this.#asked.add(userId));
    try {
      const { online } = await this.#client.emit('presence:get', { userIds: unknown });
      unknown.forEach((userId) => this.#online.delete(userId));
      online.forEach((userId) => this.#online.add(userId));
      this.#changed();
    } catch {
      // Who is online can wait: events tell of changes, and the next connection asks again.
      unknown.forEach((userId) => this.#asked.delete(userId));
    }
  }

  /** @returns {boolean} */
  isOnline(userId) {
    return this.#online.has(userId);
  }

  /** @returns {string[]} the ids of who types in a conversation */
  typistsIn(conversationId) {
    return [...this.#typing.get(conversationId)?.keys() ?? []];
  }

  /**
   * Tell that this user types in a conversation, or not any more; often enough, and not at every key.
   *
   * @param {string} conversationId
   * @param {boolean} isTyping
   */
  tell(conversationId, isTyping) {
    const isTold = this.#lastTold.conversationId === conversationId;
    if (isTyping ? isTold && Date.now() - this.#lastTold.at < REPEAT : !isTold) {
      return;
    }
    this.#lastTold = { conversationId: isTyping ? conversationId : null, at: Date.now() };
    // Of use only at the moment: what is lost is not sent again.
    this.#client.emit(isTyping ? 'typing:start' : 'typing:stop', { conversationId }).catch(() => {});
  }

  /** Note that a message ends this user's typing, which the service takes from the message itself. */
  said() {
    this.#lastTold = { conversationId: null, at: 0 };
  }

  #set(userId, isOnline) {
    this.#asked.add(userId);
    if (isOnline) {
      this.#online.add(userId);
    } else {
      this.#online.delete(userId);
    }
    this.#changed();
  }

  #setTyping({ conversationId, userId, isTyping }) {
    if (!this.#typing.has(conversationId)) {
      this.#typing.set(conversationId, new Map());
    }
    const typists = this.#typing.get(conversationId);
    clearTimeout(typists.get(userId));
    typists.delete(userId);
    if (isTyping) {
      typists.set(userId, setTimeout(() => this.#setTyping({ conversationId, userId, isTyping: false }), LAPSE));
    }
    this.#changed();
  }
}
