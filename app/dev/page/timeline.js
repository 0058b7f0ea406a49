// Draws the messages of a thread: days, groups by sender, times.

import { avatar, nameIn } from './people.js';

const GROUP_GAP = 5 * 60_000;
const DAY = 24 * 60 * 60_000;

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
   * @param {{ retry: (clientMessageId: string) => void, discard: (clientMessageId: string) => void }} actions
   */
  constructor(list, myId, actions) {
    this.#list = list;
    this.#myId = myId;
    this.#actions = actions;
  }

  /**
   * @param {object} conversation
   * @param {import('./thread.js').Thread} thread
   */
  draw(conversation, thread) {
    const rows = new Map(this.#rowsOf(thread).map((row) => [`${conversation.id} ${row.key}`, row]));
    for (const [key, element] of this.#elements) {
      if (!rows.has(key)) {
        element.remove();
        this.#elements.delete(key);
      }
    }
    let place = this.#list.firstElementChild;
    for (const [key, row] of rows) {
      const element = this.#elements.get(key) ?? this.#create(row);
      this.#elements.set(key, element);
      this.#update(element, row, conversation);
      if (element === place) {
        place = place.nextElementSibling;
      } else {
        this.#list.insertBefore(element, place);
      }
    }
  }

  #rowsOf(thread) {
    const sent = thread.messages.map((message) => ({ ...message, status: 'sent' }));
    const outgoing = thread.outgoing.map((message) => ({ ...message, senderId: this.#myId }));
    const rows = [];
    let previous = null;
    for (const message of [...sent, ...outgoing]) {
      const day = new Date(message.createdAt).toDateString();
      if (day !== previous?.day) {
        rows.push({ key: day, day, createdAt: message.createdAt });
      }
      const grouped = day === previous?.day && message.senderId === previous.message.senderId
        && new Date(message.createdAt) - new Date(previous.message.createdAt) < GROUP_GAP;
      const row = { key: this.#keyOf(message), day, message, first: !grouped, last: true };
      if (grouped) {
        previous.last = false;
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

  #create({ message }) {
    return message ? createMessage() : create('li', 'day');
  }

  #update(element, row, conversation) {
    if (row.message) {
      this.#updateMessage(element, row, conversation);
    } else {
      setText(element, dayOf(row.createdAt));
    }
  }

  #updateMessage(element, { message, first, last }, conversation) {
    const own = message.senderId === this.#myId;
    const name = own ? 'You' : nameIn(conversation, message.senderId);
    const [picture, author, bubble, meta] = element.children;
    Object.assign(element.dataset, { status: message.status, own, first, last, senderId: message.senderId });
    if (message.id) {
      element.dataset.messageId = message.id;
    }
    if (!picture.hasChildNodes() && !own) {
      picture.append(avatar(message.senderId, name));
    }
    setText(author, name);
    // Who wrote it stands above a group's first message; a screen reader hears it with every one.
    author.classList.toggle('visually-hidden', own || !first || conversation.type === 'direct');
    setText(bubble, message.deletedAt ? 'This message was deleted' : message.content);
    bubble.classList.toggle('deleted', Boolean(message.deletedAt));
    bubble.title = new Date(message.createdAt).toLocaleString();
    meta.hidden = !last && message.status === 'sent';
    this.#updateMeta(meta, message);
  }

  #updateMeta(meta, { status, error, createdAt, clientMessageId }) {
    const text = { sent: timeOf(createdAt), pending: 'Sending…', waiting: 'Waiting for the connection…' }[status]
      ?? `Not sent: ${error}`;
    if (meta.firstChild?.textContent === text) {
      return;
    }
    meta.replaceChildren(text);
    if (status === 'failed') {
      meta.append(
        button('Try again', 'retry', () => this.#actions.retry(clientMessageId)),
        button('Discard', 'discard', () => this.#actions.discard(clientMessageId)),
      );
    }
  }
}

/**
 * The time of day, for a message.
 *
 * @param {string} time
 * @returns {string}
 */
export function timeOf(time) {
  return new Date(time).toLocaleTimeString([], { hour: 'numeric', minute: '2-digit' });
}

/**
 * The time of today, or else the day, for a list.
 *
 * @param {string} time
 * @returns {string}
 */
export function shortTimeOf(time) {
  const date = new Date(time);
  return date.toDateString() === new Date().toDateString()
    ? timeOf(time)
    : date.toLocaleDateString([], { day: 'numeric', month: 'short' });
}

function dayOf(time) {
  const date = new Date(time);
  const named = { [new Date().toDateString()]: 'Today', [new Date(Date.now() - DAY).toDateString()]: 'Yesterday' };
  return named[date.toDateString()]
    ?? date.toLocaleDateString([], { weekday: 'long', day: 'numeric', month: 'long' });
}

function createMessage() {
  const element = create('li', 'message');
  const bubble = create('p', 'bubble');
  element.dataset.testid = 'message';
  bubble.dataset.testid = 'message-content';
  bubble.dir = 'auto';
  element.append(create('div', 'picture'), create('p', 'author'), bubble, create('p', 'meta'));
  return element;
}

function create(tag, className) {
  const element = document.createElement(tag);
  element.className = className;
  return element;
}

function button(text, testId, act) {
  const element = create('button', 'link');
  element.type = 'button';
  element.textContent = text;
  element.dataset.testid = testId;
  element.addEventListener('click', act);
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}
