// Draws the messages of a thread: days, groups by sender, and who has read the last of one's own.

import { readersOf } from './conversations.js';
import { element, setText } from './elements.js';
import { createMessage, updateMessage } from './message.js';
import { dayOf } from './times.js';

const GROUP_GAP = 5 * 60_000;

/**
 * Draws into one list. Elements are kept from one drawing to the next, so that a screen reader announces
 * a message once and focus stays where it is.
 */
export class Timeline {
  #list;
  #myId;
  #actions;
  #elements = new Map();

  /**
   * @param {HTMLOListElement} list
   * @param {string} myId
   * @param {import('./message.js').Actions} actions
   */
  constructor(list, myId, actions) {
    this.#list = list;
    this.#myId = myId;
    this.#actions = actions;
  }

  /**
   * @param {object} conversation
   * @param {object[]} messages
   * @param {object[]} outgoing
   */
  draw(conversation, messages, outgoing) {
    const rows = new Map(this.#rowsOf(conversation, messages, outgoing)
      .map((row) => [`${conversation.id} ${row.key}`, row]));
    for (const [key, drawn] of this.#elements) {
      if (!rows.has(key)) {
        drawn.remove();
        this.#elements.delete(key);
      }
    }
    let place = this.#list.firstElementChild;
    for (const [key, row] of rows) {
      const drawn = this.#elements.get(key) ?? (row.message ? createMessage(this.#actions) : element('li', 'day'));
      this.#elements.set(key, drawn);
      if (row.message) {
        updateMessage(drawn, row, conversation, this.#myId);
      } else {
        setText(drawn, dayOf(row.createdAt));
      }
      if (drawn === place) {
        place = place.nextElementSibling;
      } else {
        this.#list.insertBefore(drawn, place);
      }
    }
  }

  #rowsOf(conversation, messages, outgoing) {
    const stored = messages.map((message) => ({ ...message, status: 'sent' }));
    const known = new Set(messages.map(({ clientMessageId }) => clientMessageId));
    // One that is heard of before it is acknowledged stands there already.
    const unstored = outgoing.filter(({ clientMessageId }) => !known.has(clientMessageId))
      .map((message) => ({ ...message, senderId: this.#myId, reactions: [] }));
    const lastOwn = stored.findLast(({ senderId, deletedAt }) => senderId === this.#myId && !deletedAt);
    const rows = [];
    let previous = null;
    for (const message of [...stored, ...unstored]) {
      const day = new Date(message.createdAt).toDateString();
      if (day !== previous?.day) {
        rows.push({ key: day, createdAt: message.createdAt });
      }
      const isGrouped = day === previous?.day && message.senderId === previous.message.senderId
        && new Date(message.createdAt) - new Date(previous.message.createdAt) < GROUP_GAP;
      const readers = message === lastOwn ? readersOf(conversation, message.seq, this.#myId) : [];
      const row = { key: this.#keyOf(message), day, message, readers, isFirst: !isGrouped, isLast: true };
      if (isGrouped) {
        previous.isLast = false;
      }
      rows.push(row);
      previous = row;
    }
    return rows;
  }

  #keyOf({ id, senderId, clientMessageId }) {
    // A message keeps its element when it is acknowledged, and its id is new.
    return senderId === this.#myId && clientMessageId ? `mine ${clientMessageId}` : id;
  }
}
