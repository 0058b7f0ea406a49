// Draws the list of the conversations, the latest first.

import { avatarOf, nameIn, titleOf } from './people.js';
import { shortTimeOf } from './timeline.js';

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
  const news = chat.hasNews(id);
  const link = element('a', 'conversation');
  link.href = `#${id}`;
  Object.assign(link.dataset, { testid: 'conversation-item', conversationId: id, news });
  if (id === chat.opened?.id) {
    link.ariaCurrent = 'true';
  }
  link.append(
    avatarOf(conversation, chat.myId),
    element('span', 'conversation-title', titleOf(conversation, chat.myId)),
    element('time', 'conversation-time', shortTimeOf(timeOfLast(conversation))),
    element('span', 'conversation-last', previewOf(conversation, chat.myId)),
    element('span', 'news', news ? 'New' : ''),
  );
  const item = document.createElement('li');
  item.append(link);
  return item;
}

function previewOf(conversation, myId) {
  const { lastMessage, type } = conversation;
  if (!lastMessage) {
    return 'No messages yet';
  }
  const text = lastMessage.deletedAt ? 'This message was deleted' : lastMessage.content;
  if (lastMessage.senderId === myId) {
    return `You: ${text}`;
  }
  return type === 'group' ? `${nameIn(conversation, lastMessage.senderId)}: ${text}` : text;
}

function element(tag, className, text = '') {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}
