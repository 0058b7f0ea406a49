// What a conversation looks like after a change: the state that was loaded, and the events that follow it.

const MOST_UNREAD = 1000;

/**
 * Apply an event to a conversation, unless what was loaded has it already.
 *
 * @param {object} conversation changed in place
 * @param {string} event
 * @param {object} data
 * @param {string} myId
 * @returns {boolean} whether how much is unread can be told only by loading the conversation again
 */
export function apply(conversation, event, data, myId) {
  if (data.seq <= conversation.lastSeq) {
    return false;
  }
  conversation.lastSeq = data.seq;
  return CHANGES[event]?.(conversation, data, myId) ?? false;
}

/**
 * Note how far somebody has read.
 *
 * @param {object} conversation changed in place
 * @param {{ userId: string, lastReadSeq: number }} receipt
 * @param {string} myId
 * @returns {boolean} as `apply`
 */
export function applyReceipt(conversation, { userId, lastReadSeq }, myId) {
  const reader = participantOf(conversation, userId);
  if (reader) {
    reader.lastReadSeq = Math.max(reader.lastReadSeq, lastReadSeq);
  }
  if (userId !== myId || conversation.unreadCount === 0) {
    return false;
  }
  const isAll = lastReadSeq >= (conversation.lastMessage?.seq ?? 0);
  if (isAll) {
    conversation.unreadCount = 0;
  }
  return !isAll;
}

function participantOf(conversation, userId) {
  return conversation.participants.find((participant) => participant.userId === userId);
}

/**
 * Who else has read up to a seq.
 *
 * @param {object} conversation
 * @param {number} seq
 * @param {string} myId
 * @returns {string[]} user ids
 */
export function readersOf(conversation, seq, myId) {
  const readers = conversation.participants.filter(({ userId, lastReadSeq }) => userId !== myId && lastReadSeq >= seq);
  return readers.map(({ userId }) => userId);
}

const CHANGES = {
  'message:new'(conversation, message, myId) {
    conversation.lastMessage = message;
    if (message.senderId !== myId) {
      conversation.unreadCount = Math.min(MOST_UNREAD, (conversation.unreadCount ?? 0) + 1);
    }
  },
  'message:updated'({ lastMessage }, { messageId, content }) {
    if (lastMessage?.id === messageId) {
      lastMessage.content = content;
    }
  },
  'message:deleted'({ lastMessage, unreadCount }, { messageId, deletedAt }) {
    if (lastMessage?.id === messageId) {
      Object.assign(lastMessage, { content: '', attachments: [], deletedAt });
    }
    // It may be one of those that count.
    return unreadCount > 0;
  },
  'participant:added'(conversation, { participant }) {
    if (!participantOf(conversation, participant.userId)) {
      conversation.participants.push(participant);
      conversation.participantCount += 1;
    }
  },
  'participant:removed'(conversation, { userId }) {
    conversation.participants = conversation.participants.filter((participant) => participant.userId !== userId);
    conversation.participantCount -= 1;
  },
  'conversation:updated'(conversation, { title, metadata, ownerId }) {
    Object.assign(conversation, { title: title ?? undefined, metadata, ownerId: ownerId ?? undefined });
  },
};
