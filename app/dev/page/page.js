// The page of the demonstration: log in by name, talk in as many windows as there are people.

import { Chat } from './chat.js';
import { Composer } from './composer.js';
import { drawConversations } from './conversation-list.js';
import { setText } from './elements.js';
import { Master } from './master.js';
import { MessageMenu } from './message-menu.js';
import { avatar, avatarOf, nameIn, nameOfId, otherOf, titleOf, userIdOf, userIdsOf } from './people.js';
import { Timeline } from './timeline.js';

const NEAR = 80;
const STATES = {
  closed: 'Logged out',
  connecting: 'Connecting…',
  syncing: 'Catching up…',
  connected: 'Connected',
  offline: 'Offline, trying again',
  refused: 'Refused',
};

const $ = (id) => document.getElementById(id);

const master = new Master();

let chat = null;
let timeline = null;
let composer = null;
let atEnd = true;
let isDrawing = false;

// --- Logging in -----------------------------------------------------------------------------------------------

async function enter(name) {
  $('login-button').disabled = true;
  $('login-error').textContent = '';
  try {
    userIdOf(name);
    await master.logIn(name);
    sessionStorage.setItem('name', name);
    start();
  } catch (error) {
    showLogin(name, error.message);
  } finally {
    $('login-button').disabled = false;
  }
}

function showLogin(name, error) {
  $('login-screen').hidden = false;
  $('login-name').value = name;
  $('login-error').textContent = error;
  $('login-name').focus();
}

function logOut() {
  chat.close();
  sessionStorage.removeItem('name');
  location.replace('/');
}

function start() {
  const { userId, displayName } = master.me;
  $('login-screen').hidden = true;
  $('chat-screen').hidden = false;
  $('me-name').textContent = displayName;
  $('me-avatar').replaceChildren(avatar(userId, displayName));
  chat = new Chat(master, { changed: drawSoon, failed: notify, recovered: hideProblem, state: showState });
  const menu = new MessageMenu($('message-menu'), {
    react: (message, emoji) => chat.react(message, emoji),
    edit: (message) => composer.edit(message),
    remove: (message) => chat.delete(message.id),
  });
  timeline = new Timeline($('message-list'), userId, {
    menu: (message, opener) => {
      const isOwn = message.senderId === userId;
      menu.open(message, isOwn, isOwn || chat.opened.ownerId === userId, opener);
    },
    react: (message, emoji) => chat.react(message, emoji),
    retry: (id) => chat.sayAgain(id),
    discard: (id) => chat.discard(id),
  });
  composer = new Composer({
    say,
    edit: (messageId, content) => chat.edit(messageId, content),
    upload: (file) => master.upload(file),
    lastOwn: () => chat.thread.messages.findLast(({ senderId, deletedAt }) => senderId === userId && !deletedAt),
    typing: (isTyping) => chat.opened && chat.attendance.tell(chat.opened.id, isTyping),
    failed: notify,
  });
  route();
  tellNotifications();
}

/** Say who wrote while this user was away, which the master knows of by its webhook. */
async function tellNotifications() {
  try {
    const counts = new Map();
    for (const { senderId } of await master.takeNotifications()) {
      counts.set(senderId, (counts.get(senderId) ?? 0) + 1);
    }
    if (counts.size > 0) {
      const parts = [...counts].map(([userId, count]) => `${nameOfId(userId)} (${count})`);
      notify(`While you were away you got messages from ${parts.join(', ')}.`, 'news');
    }
  } catch (error) {
    notify(error.message);
  }
}

function showState(state, reason) {
  $('connection').textContent = STATES[state];
  $('connection').dataset.state = state;
  if (state === 'refused') {
    notify(`The chat service ended the connection (${reason}). Reload the page to connect again.`);
  }
}

function notify(text, kind = 'problem') {
  $('notice-text').textContent = text;
  $('notice').dataset.kind = kind;
  $('notice').hidden = false;
}

function hideNotice() {
  $('notice').hidden = true;
}

function hideProblem() {
  if ($('notice').dataset.kind === 'problem') {
    hideNotice();
  }
  $('new-error').textContent = '';
}

// --- Conversations --------------------------------------------------------------------------------------------

function route() {
  chat?.open(location.hash.slice(1));
}

async function startConversation() {
  $('new-error').textContent = '';
  $('new-button').disabled = true;
  try {
    location.hash = await chat.start(userIdsOf($('new-names').value), $('new-title').value.trim());
    $('new-form').reset();
    $('new-title-row').hidden = true;
  } catch (error) {
    $('new-error').textContent = error.message;
  } finally {
    $('new-button').disabled = false;
  }
}

function offerTitle() {
  const others = $('new-names').value.split(',').filter((name) => name.trim() !== '');
  $('new-title-row').hidden = others.length < 2;
}

// --- The thread -----------------------------------------------------------------------------------------------

function say(content, attachments) {
  chat.say(content, attachments);
  // Once it is drawn.
  queueMicrotask(() => {
    $('log').scrollTop = $('log').scrollHeight;
  });
}

/** Go from message to message by the arrow keys, as in a list box. */
function walk(event) {
  const steps = { ArrowUp: -1, ArrowDown: 1 };
  const buttons = [...$('message-list').querySelectorAll('.more:not([hidden])')];
  if (!(event.key in steps) || buttons.length === 0) {
    return;
  }
  const at = buttons.indexOf(document.activeElement);
  const next = at === -1 ? buttons.length - 1 : at + steps[event.key];
  event.preventDefault();
  (buttons[next] ?? document.activeElement).focus();
}

// --- Drawing --------------------------------------------------------------------------------------------------

/** Draw once for all that changes in one turn. */
function drawSoon() {
  if (!isDrawing) {
    isDrawing = true;
    queueMicrotask(draw);
  }
}

function draw() {
  isDrawing = false;
  const unread = [...chat.conversations.values()].filter(({ unreadCount }) => unreadCount > 0).length;
  document.title = `${unread > 0 ? `(${unread}) ` : ''}${master.me.displayName} · Chat`;
  drawConversations($('conversation-list'), chat);
  drawHints();
  drawThread();
}

function drawHints() {
  const { conversations, loaded } = chat;
  $('more-conversations').hidden = !chat.hasMore;
  $('no-conversations').hidden = !loaded || conversations.size > 0;
  $('nothing-title').textContent = loaded ? `Hello, ${master.me.displayName}` : 'One moment…';
  $('nothing-text').textContent = conversations.size > 0
    ? 'Choose a conversation, or start one with somebody by name.'
    : 'Your messages show up here.';
  $('nothing-text').hidden = !loaded;
}

function drawThread() {
  const conversation = chat.opened;
  $('chat-screen').dataset.view = conversation ? 'thread' : 'list';
  $('thread').hidden = !conversation;
  $('nothing-open').hidden = Boolean(conversation);
  if (conversation) {
    const { thread, outgoing } = chat;
    drawHeader(conversation);
    $('log').ariaBusy = String(thread.loading);
    keepingPlace(conversation, () => {
      $('older').hidden = !thread.cursor;
      $('no-messages').hidden = !thread.loaded || thread.messages.length + outgoing.length > 0;
      timeline.draw(conversation, thread.messages, outgoing);
    });
  }
  composer.show(conversation?.id ?? null);
}

function drawHeader(conversation) {
  const { id, participants, participantCount } = conversation;
  const other = otherOf(conversation, chat.myId);
  setText($('thread-title'), titleOf(conversation, chat.myId));
  $('thread-avatar').replaceChildren(avatarOf(conversation, chat.myId));
  $('thread-avatar').dataset.online = chat.attendance.isOnline(other);
  const names = participants.map(({ userId }) => (userId === chat.myId ? 'You' : nameIn(conversation, userId)));
  const unnamed = participantCount - participants.length;
  const people = names.join(', ') + (unnamed > 0 ? ` and ${unnamed} more` : '');
  const presence = chat.attendance.isOnline(other) ? 'Online' : 'Offline';
  setText($('thread-people'), other ? presence : people);
  const typists = chat.attendance.typistsIn(id).map((userId) => nameIn(conversation, userId));
  const verb = typists.length > 1 ? 'are' : 'is';
  setText($('typing'), typists.length > 0 ? `${typists.join(', ')} ${verb} typing…` : '');
}

/** Draw, and stay at the end if that is where the reader was; else keep what they read where it is. */
function keepingPlace(conversation, drawMessages) {
  const log = $('log');
  const follow = log.dataset.conversationId !== conversation.id || isAtEnd();
  const first = $('message-list').querySelector('.message');
  const top = first?.offsetTop;
  log.dataset.conversationId = conversation.id;
  drawMessages();
  if (follow) {
    log.scrollTop = log.scrollHeight;
  } else if (first?.isConnected) {
    log.scrollTop += first.offsetTop - top;
  }
}

function isAtEnd() {
  const { scrollHeight, scrollTop, clientHeight } = $('log');
  return scrollHeight - scrollTop - clientHeight < NEAR;
}

// --- Listening ------------------------------------------------------------------------------------------------

function onSubmit(id, act) {
  $(id).addEventListener('submit', (event) => {
    event.preventDefault();
    act();
  });
}

onSubmit('login-form', () => enter($('login-name').value));
onSubmit('new-form', startConversation);
// What was wrong is being mended.
$('login-form').addEventListener('input', () => { $('login-error').textContent = ''; });
$('new-form').addEventListener('input', () => { $('new-error').textContent = ''; });
$('logout-button').addEventListener('click', logOut);
$('more-conversations').addEventListener('click', () => chat.loadMoreConversations());
$('older').addEventListener('click', () => chat.loadOlder());
$('notice-close').addEventListener('click', hideNotice);
$('new-names').addEventListener('input', offerTitle);
$('log').addEventListener('keydown', walk);
$('log').addEventListener('scroll', () => {
  atEnd = isAtEnd();
  if ($('log').scrollTop < NEAR && $('log').scrollHeight > $('log').clientHeight) {
    chat.loadOlder();
  }
});
// A keyboard or a longer draft takes room from the log; its end is what should stay in sight.
new ResizeObserver(() => {
  if (atEnd) {
    $('log').scrollTop = $('log').scrollHeight;
  }
}).observe($('log'));
window.addEventListener('hashchange', route);
document.addEventListener('visibilitychange', () => {
  if (chat && document.visibilityState === 'visible') {
    chat.see();
  }
});

const known = new URLSearchParams(location.search).get('name') ?? sessionStorage.getItem('name');
if (known) {
  enter(known);
} else {
  showLogin('', '');
}
