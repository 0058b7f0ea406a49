// Names of people and conversations, and what stands for them.

/**
 * Derive a user's id from a name, as the master does at login (`user_id_of` in accounts.py).
 *
 * @param {string} name
 * @returns {string}
 */
export function userIdOf(name) {
  const userId = name.normalize('NFC').toLowerCase().trim().split(/\s+/u).join('-');
  if (!/^[\p{L}\p{N}][\p{L}\p{M}\p{N}._-]{0,63}$/u.test(userId)) {
    throw new Error(`“${name.trim()}” is no name: use 1 to 64 letters, digits, spaces and . _ -`);
  }
  return userId;
}

/**
 * Read the names that were typed, separated by commas, as user ids without repetition.
 *
 * @param {string} text
 * @returns {string[]}
 */
export function userIdsOf(text) {
  const names = text.split(',').filter((name) => name.trim() !== '');
  return [...new Set(names.map(userIdOf))];
}

/**
 * Give a user id the look of a name, for users whose profile the chat service does not have.
 *
 * @param {string} userId
 * @returns {string}
 */
export function nameOfId(userId) {
  const words = userId.split('-').filter((word) => word !== '');
  return words.map((word) => word.replace(/^\p{L}/u, (letter) => letter.toUpperCase())).join(' ');
}

/**
 * Name a group that got no title after the people in it.
 *
 * @param {string[]} userIds
 * @returns {string}
 */
export function groupTitle(userIds) {
  return userIds.map(nameOfId).join(', ').slice(0, 200);
}

/**
 * Name a user as seen from a conversation.
 *
 * @param {object} conversation
 * @param {string} userId
 * @returns {string}
 */
export function nameIn(conversation, userId) {
  const participant = conversation.participants.find((one) => one.userId === userId);
  // The master's own word stands before what it told the chat service.
  return participant?.profile?.displayName ?? participant?.displayName ?? nameOfId(userId);
}

/**
 * Name a conversation as one of its participants sees it.
 *
 * @param {object} conversation
 * @param {string} myId
 * @returns {string}
 */
export function titleOf(conversation, myId) {
  if (conversation.title) {
    return conversation.title;
  }
  const others = conversation.participants.filter(({ userId }) => userId !== myId);
  return others.map(({ userId }) => nameIn(conversation, userId)).join(', ') || 'Only you';
}

/**
 * Make the picture of a user or a group: initials, in a colour that is always the same for the id.
 *
 * @param {string} id
 * @param {string} name
 * @returns {HTMLElement}
 */
export function avatar(id, name) {
  const element = document.createElement('span');
  element.className = 'avatar';
  element.ariaHidden = 'true';
  element.textContent = initialsOf(name);
  element.style.setProperty('--hue', hueOf(id));
  return element;
}

/**
 * Make the picture of a conversation: of the other one, or of the group.
 *
 * @param {object} conversation
 * @param {string} myId
 * @returns {HTMLElement}
 */
export function avatarOf(conversation, myId) {
  return avatar(otherOf(conversation, myId) ?? conversation.id, titleOf(conversation, myId));
}

/**
 * The other one of a direct conversation.
 *
 * @param {object} conversation
 * @param {string} myId
 * @returns {string | undefined} the user's id; nothing in a group
 */
export function otherOf({ type, participants }, myId) {
  return type === 'direct' ? participants.find(({ userId }) => userId !== myId)?.userId : undefined;
}

function initialsOf(name) {
  const words = name.split(/[\s,]+/u).filter((word) => word !== '');
  return words.slice(0, 2).map((word) => [...word][0].toUpperCase()).join('');
}

function hueOf(id) {
  // FNV-1a, mixed once more: ids that differ in one character shall differ in colour.
  let hash = 2166136261;
  for (const character of id) {
    hash = Math.imul(hash ^ character.codePointAt(0), 16777619);
  }
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  return ((hash ^ (hash >>> 12)) >>> 0) % 360;
}
