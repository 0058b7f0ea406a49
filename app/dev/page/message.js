// Draws one message: who wrote it, what it says, its attachments, reactions, and what became of it.

import { button, element, setText } from './elements.js';
import { avatar, nameIn } from './people.js';
import { timeOf } from './times.js';

/**
 * @typedef {object} Actions
 * @property {(message: object, opener: HTMLElement) => void} menu
 * @property {(message: object, emoji: string) => void} react
 * @property {(clientMessageId: string) => void} retry
 * @property {(clientMessageId: string) => void} discard
 */

const drawn = new WeakMap();

/**
 * @param {Actions} actions
 * @returns {HTMLLIElement} without content, which `updateMessage` gives it
 */
export function createMessage(actions) {
  const made = element('li', 'message');
  made.dataset.testid = 'message';
  const parts = {
    picture: element('div', 'picture'),
    author: element('p', 'author'),
    line: element('div', 'line'),
    bubble: element('div', 'bubble'),
    content: element('p', 'content'),
    attachments: element('ul', 'attachments'),
    reactions: element('ul', 'reactions'),
    meta: element('p', 'meta'),
  };
  parts.content.dataset.testid = 'message-content';
  parts.content.dir = 'auto';
  parts.meta.dataset.testid = 'message-meta';
  // The arrow keys of the log lead here, so that a way past the messages is not one of a hundred steps.
  parts.more = button('more', '⋯', 'message-menu-button', () => actions.menu(drawn.get(made).message, parts.more));
  parts.more.tabIndex = -1;
  parts.more.ariaHasPopup = 'dialog';
  parts.bubble.append(parts.content, parts.attachments);
  parts.line.append(parts.bubble, parts.more);
  made.append(parts.picture, parts.author, parts.line, parts.reactions, parts.meta);
  drawn.set(made, { parts, actions, message: null });
  return made;
}

/**
 * @param {HTMLLIElement} changed
 * @param {{ message: object, readers: string[], isFirst: boolean, isLast: boolean }} row
 * @param {object} conversation
 * @param {string} myId
 */
export function updateMessage(changed, row, conversation, myId) {
  const state = drawn.get(changed);
  const { parts, actions } = state;
  const { message, isFirst, isLast } = row;
  const { status, senderId, deletedAt } = message;
  const isOwn = senderId === myId;
  const name = isOwn ? 'You' : nameIn(conversation, senderId);
  state.message = message;
  Object.assign(changed.dataset, { status, own: isOwn, first: isFirst, last: isLast, senderId });
  if (message.id) {
    changed.dataset.messageId = message.id;
  }
  if (!parts.picture.hasChildNodes() && !isOwn) {
    parts.picture.append(avatar(senderId, name));
  }
  setText(parts.author, name);
  // Who wrote it stands above a group's first message; a screen reader hears it with every one.
  parts.author.classList.toggle('visually-hidden', isOwn || !isFirst || conversation.type === 'direct');
  setText(parts.content, deletedAt ? 'This message was deleted' : message.content);
  parts.content.hidden = !deletedAt && message.content.trim() === '';
  parts.bubble.classList.toggle('deleted', Boolean(deletedAt));
  parts.bubble.title = new Date(message.createdAt).toLocaleString();
  parts.more.hidden = status !== 'sent' || Boolean(deletedAt);
  parts.more.ariaLabel = `What to do with “${message.content.slice(0, 40)}” by ${name}`;
  fill(parts.attachments, message.attachments, (attachment) => attachmentOf(attachment));
  fill(parts.reactions, message.reactions, (reaction) => reactionOf(reaction, conversation, state, actions, myId));
  updateMeta(parts.meta, row, conversation, actions);
}

/** Draw a list anew where it is another one than before. */
function fill(list, items, draw) {
  const key = JSON.stringify(items);
  if (list.dataset.key !== key) {
    list.dataset.key = key;
    list.replaceChildren(...items.map(draw));
    list.hidden = items.length === 0;
  }
}

function attachmentOf({ externalFileId, label }) {
  const link = element('a', 'attachment', label ?? 'A file');
  link.href = `/files/${encodeURIComponent(externalFileId)}`;
  link.download = label ?? '';
  link.dataset.testid = 'attachment';
  const item = element('li', '');
  item.append(link);
  return item;
}

function reactionOf({ emoji, userIds, count }, conversation, state, actions, myId) {
  const isMine = userIds.includes(myId);
  const names = userIds.map((userId) => (userId === myId ? 'You' : nameIn(conversation, userId))).join(', ');
  const chip = button('reaction', `${emoji} ${count}`, 'reaction', () => actions.react(state.message, emoji));
  chip.tabIndex = -1;
  chip.ariaPressed = String(isMine);
  chip.title = names;
  chip.ariaLabel = `${emoji} ${count}: ${names}`;
  const item = element('li', '');
  item.append(chip);
  return item;
}

function updateMeta(meta, row, conversation, actions) {
  const { message: { status, clientMessageId }, isLast } = row;
  const text = metaOf(row, conversation);
  meta.hidden = !isLast && !text.includes('·') && status === 'sent';
  if (meta.firstChild?.textContent === text) {
    return;
  }
  meta.replaceChildren(text);
  if (status === 'failed') {
    meta.append(
      button('link', 'Try again', 'retry', () => actions.retry(clientMessageId)),
      button('link', 'Discard', 'discard', () => actions.discard(clientMessageId)),
    );
  }
}

function metaOf({ message, readers }, conversation) {
  const { status, createdAt, updatedAt, deletedAt, error } = message;
  if (status !== 'sent') {
    return { sending: 'Sending…', waiting: 'Waiting for the connection…' }[status] ?? `Not sent: ${error.message}`;
  }
  const facts = [timeOf(createdAt)];
  if (updatedAt !== createdAt && !deletedAt) {
    facts.push('edited');
  }
  if (readers.length > 0) {
    const names = readers.slice(0, 3).map((userId) => nameIn(conversation, userId)).join(', ');
    const more = readers.length > 3 ? ` and ${readers.length - 3} more` : '';
    facts.push(conversation.type === 'direct' ? 'Read' : `Read by ${names}${more}`);
  }
  return facts.join(' · ');
}
