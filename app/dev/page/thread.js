// The messages of one conversation, as far as this page holds them.

/** Holds messages by id, so that one that comes twice (an acknowledgement, an event, a page of history) stays one. */
export class Thread {
  /** Where the history before the messages held goes on; undefined at its beginning. */
  cursor;
  /** Whether the latest page was loaded: the events after it bring all that follows. */
  loaded = false;
  /** Whether a page of the history is on its way. */
  loading = false;
  #messages = new Map();
  // What happened while a page was on its way, which may say how things were before.
  #meanwhile = [];

  /** @returns {object[]} the messages in their order */
  get messages() {
    return [...this.#messages.values()].sort((one, other) => one.seq - other.seq);
  }

  /** @param {object} message that was sent or acknowledged; one that is there is the newer one */
  add(message) {
    if (!this.#messages.has(message.id)) {
      this.#messages.set(message.id, message);
    }
  }

  /**
   * Apply an event.
   *
   * @param {string} event
   * @param {object} data
   */
  apply(event, data) {
    if (this.loading) {
      this.#meanwhile.push([event, data]);
    }
    this.#change(event, data);
  }

  /**
   * Take in the latest page of the history, in the place of all that is held.
   *
   * @param {{ items: object[], nextCursor?: string }} page
   */
  reset(page) {
    this.#messages.clear();
    this.loaded = true;
    this.addOlder(page);
  }

  /**
   * Take in the page before the messages held.
   *
   * @param {{ items: object[], nextCursor?: string }} page
   */
  addOlder({ items, nextCursor }) {
    items.forEach((message) => this.#messages.set(message.id, message));
    this.cursor = nextCursor;
    this.#meanwhile.forEach(([event, data]) => this.#change(event, data));
    this.#meanwhile = [];
  }

  #change(event, data) {
    if (event === 'message:new') {
      this.add(data);
      return;
    }
    const message = this.#messages.get(data.messageId);
    if (message && !message.deletedAt) {
      this.#messages.set(message.id, CHANGED[event]?.(message, data) ?? message);
    }
  }
}

const CHANGED = {
  'message:updated': (message, { content, updatedAt }) => ({ ...message, content, updatedAt }),
  'message:deleted': (message, { deletedAt }) => ({
    ...message, content: '', attachments: [], reactions: [], deletedAt,
  }),
  'reaction:added': (message, { emoji, userId }) => withReaction(message, emoji, (userIds, count) =>
    (userIds.includes(userId) ? [userIds, count] : [[...userIds, userId], count + 1])),
  'reaction:removed': (message, { emoji, userId }) => withReaction(message, emoji, (userIds, count) =>
    (userIds.includes(userId) ? [userIds.filter((one) => one !== userId), count - 1] : [userIds, count])),
};

function withReaction(message, emoji, change) {
  const before = message.reactions.find((reaction) => reaction.emoji === emoji);
  const [userIds, count] = change(before?.userIds ?? [], before?.count ?? 0);
  const after = { emoji, userIds, count };
  const reactions = before
    ? message.reactions.map((reaction) => (reaction === before ? after : reaction))
    : [...message.reactions, after];
  return { ...message, reactions: reactions.filter((reaction) => reaction.count > 0) };
}
