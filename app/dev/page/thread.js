// The messages of one conversation, as far as this page holds them.

/**
 * Holds messages by id, so that one that comes twice (an acknowledgement, an event, a page of history) stays one,
 * and those that are still on their way.
 */
export class Thread {
  /** Where the history before the messages held goes on; undefined at its beginning. */
  cursor;
  /** Whether nothing can be missing: the latest page was loaded on the connection that is open now. */
  synced = false;
  /** Whether a page of the history is on its way. */
  loading = false;
  #messages = new Map();
  #outgoing = new Map();
  #reachedSeq = -1;

  /** @returns {object[]} the messages in their order */
  get messages() {
    return [...this.#messages.values()].sort((one, other) => one.seq - other.seq);
  }

  /** @returns {object[]} what was written here and is not acknowledged, as it was added */
  get outgoing() {
    return [...this.#outgoing.values()];
  }

  /**
   * Add a message that was just written, or change its status.
   *
   * @param {{ clientMessageId: string, content: string, createdAt: string, status: string, error?: string }} message
   *   the status is `pending`, `waiting` (for the connection) or `failed`
   */
  addOutgoing(message) {
    this.#outgoing.set(message.clientMessageId, message);
  }

  /** @param {string} clientMessageId */
  removeOutgoing(clientMessageId) {
    this.#outgoing.delete(clientMessageId);
  }

  /**
   * Add a message that the service sent or acknowledged.
   *
   * @param {object} message
   * @param {boolean} own whether this user wrote it, here or in another window
   */
  add(message, own) {
    this.#messages.set(message.id, message);
    if (own) {
      this.#outgoing.delete(message.clientMessageId);
    }
    if (this.synced) {
      this.#reachedSeq = Math.max(this.#reachedSeq, message.seq);
    }
  }

  /**
   * Take in the latest page of the history.
   *
   * @param {{ items: object[], nextCursor?: string, hasMore: boolean }} page
   * @param {string} myId
   */
  addLatest({ items, nextCursor, hasMore }, myId) {
    const oldestSeq = items.at(-1)?.seq ?? 0;
    // Where the page does not reach back to what is held, there is a gap: what lies before it is let go.
    if (hasMore && oldestSeq > this.#reachedSeq) {
      for (const { id, seq } of this.messages) {
        if (seq < oldestSeq) {
          this.#messages.delete(id);
        }
      }
      this.cursor = nextCursor;
    } else if (!hasMore) {
      this.cursor = undefined;
    }
    this.synced = true;
    this.#addAll(items, myId);
  }

  /**
   * Take in the page before the messages held.
   *
   * @param {{ items: object[], nextCursor?: string }} page
   * @param {string} myId
   */
  addOlder({ items, nextCursor }, myId) {
    this.#addAll(items, myId);
    this.cursor = nextCursor;
  }

  #addAll(items, myId) {
    for (const message of items) {
      this.add(message, message.senderId === myId);
    }
  }
}
