// Draws the list of the conversations, the latest first.

import { element } from './elements.js';
import { avatarOf, nameIn, otherOf, titleOf } from './people.js';
import { shortTimeOf } from './times.js';

/**
 * Draw into a list; the focus stays on the conversation that has it.
 *
 * @param {HTMLUListElement} list
 * @param {import('./chat.js').Chat} chat
 */
export function drawConversations(list, chat) {
  const latestFirst = [...chat.conversations.values()]
    .sort((one, other) => timeOfLast(other).localeCompare(timeOfLast(one)));
  const focused = document.activeElement?.dataset.conversationId;
  list.replaceChildren(...latestFirst.map((conversation) => itemOf(conversation, chat)));
  if (focused) {
    list.querySelector(`[data-conversation-id="${CSS.escape(focused)}"]`)?.focus();
  }
}

function timeOfLast(conversation) {
  return (conversation.lastMessage ?? conversation).createdAt;
}

function itemOf(conversation, chat) {
  const { id } = conversation;
  const unread = conversation.unreadCount ?? 0;
  const isOnline = chat.attendance.isOnline(otherOf(conversation, chat.myId));
  const link = element('a', 'conversation');
  link.href = `#${id}`;
  Object.assign(link.dataset, { testid: 'conversation-item', conversationId: id, unread, online: isOnline });
  if (id === chat.opened?.id) {
    link.ariaCurrent = 'true';
  }
  link.append(
    pictureOf(conversation, chat.myId, isOnline),
    element('span', 'conversation-title', titleOf(conversation, chat.myId)),
    element('time', 'conversation-time', shortTimeOf(timeOfLast(conversation))),
    element('span', 'conversation-last', previewOf(conversation, chat)),
    countOf(unread),
  );
  const item = document.createElement('li');
  item.append(link);
  return item;
}

function pictureOf(conversation, myId, isOnline) {
  const picture = element('span', 'picture');
  picture.append(avatarOf(conversation, myId));
  if (isOnline) {
    picture.append(element('span', 'visually-hidden', 'Online'));
  }
  return picture;
}

function countOf(unread) {
  const count = element('span', 'unread', unread === 0 ? '' : unread > 99 ? '99+' : unread);
  if (unread > 0) {
    count.append(element('span', 'visually-hidden', ' unread'));
  }
  return count;
}

function previewOf(conversation, { myId, attendance }) {
  const { id, lastMessage, type } = conversation;
  if (attendance.typistsIn(id).length > 0) {
    return 'Typing…';
  }
  if (!lastMessage) {
    return 'No messages yet';
  }
  const { content, attachments, deletedAt, senderId } = lastMessage;
  const text = deletedAt ? 'This message was deleted' : content.trim() || (attachments[0]?.label ?? 'A file');
  if (senderId === myId) {
    return `You: ${text}`;
  }
  return type === 'group' ? `${nameIn(conversation, senderId)}: ${text}` : text;
}
