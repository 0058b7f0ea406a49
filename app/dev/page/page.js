// The page of the demonstration: log in by name, talk in as many windows as there are people.

import { Chat } from './chat.js';
import { drawConversations } from './conversation-list.js';
import { Master } from './master.js';
import { avatar, avatarOf, nameIn, nameOfId, titleOf, userIdOf, userIdsOf } from './people.js';
import { Timeline } from './timeline.js';

const NEAR = 80;
const STATES = {
  connecting: 'Connecting…',
  connected: 'Connected',
  offline: 'Offline, trying again',
  refused: 'Refused',
};

const $ = (id) => document.getElementById(id);

const master = new Master();
const drafts = new Map();

let chat = null;
let timeline = null;
let shownId = null;
let atEnd = true;

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
  const { userId } = master.me;
  const name = nameOfId(userId);
  document.title = `${name} · Chat`;
  $('login-screen').hidden = true;
  $('chat-screen').hidden = false;
  $('me-name').textContent = name;
  $('me-avatar').replaceChildren(avatar(userId, name));
  chat = new Chat(master, { changed: draw, failed: notify, recovered: hideNotice, state: showState });
  timeline = new Timeline($('message-list'), userId, {
    retry: (id) => chat.sayAgain(id),
    discard: (id) => chat.discard(id),
  });
  route();
}

function showState(state, reason) {
  $('connection').textContent = STATES[state];
  $('connection').dataset.state = state;
  if (state === 'refused') {
    notify(`The chat service ended the connection (${reason}). Reload the page to connect again.`);
  }
}

function notify(text) {
  $('notice-text').textContent = text;
  $('notice').hidden = false;
}

function hideNotice() {
  $('notice').hidden = true;
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

// --- The composer ---------------------------------------------------------------------------------------------

function submit() {
  const content = $('composer').value;
  if (content.trim() === '') {
    return;
  }
  $('composer').value = '';
  fitComposer();
  chat.say(content);
  $('log').scrollTop = $('log').scrollHeight;
}

function fitComposer() {
  const composer = $('composer');
  composer.style.height = 'auto';
  composer.style.height = `${composer.scrollHeight}px`;
}

/** Give every conversation a draft of its own. */
function changeDraft(id) {
  if (shownId) {
    drafts.set(shownId, $('composer').value);
  }
  shownId = id;
  if (!id) {
    return;
  }
  $('composer').value = drafts.get(id) ?? '';
  fitComposer();
  // On a phone the focus would bring up the keyboard over what was opened to be read.
  if (matchMedia('(pointer: fine)').matches) {
    $('composer').focus();
  }
}

// --- Drawing --------------------------------------------------------------------------------------------------

function draw() {
  drawConversations($('conversation-list'), chat);
  drawHints();
  drawThread();
}

function drawHints() {
  const { conversations, loaded } = chat;
  $('more-conversations').hidden = !chat.hasMore;
  $('no-conversations').hidden = !loaded || conversations.size > 0;
  $('nothing-title').textContent = loaded ? `Hello, ${nameOfId(chat.myId)}` : 'One moment…';
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
    const { thread } = chat;
    drawHeader(conversation);
    $('log').ariaBusy = String(thread.loading);
    keepingPlace(conversation, () => {
      $('older').hidden = !thread.cursor;
      $('no-messages').hidden = !thread.synced || thread.messages.length + thread.outgoing.length > 0;
      timeline.draw(conversation, thread);
    });
  }
  if ((conversation?.id ?? null) !== shownId) {
    changeDraft(conversation?.id ?? null);
  }
}

function drawHeader(conversation) {
  const { participants, participantCount, type } = conversation;
  $('thread-title').textContent = titleOf(conversation, chat.myId);
  $('thread-avatar').replaceChildren(avatarOf(conversation, chat.myId));
  const names = participants.map(({ userId }) => (userId === chat.myId ? 'You' : nameIn(conversation, userId)));
  const unnamed = participantCount - participants.length;
  $('thread-people').textContent = names.join(', ') + (unnamed > 0 ? ` and ${unnamed} more` : '');
  $('thread-people').hidden = type === 'direct';
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
onSubmit('composer-form', submit);
$('logout-button').addEventListener('click', logOut);
$('more-conversations').addEventListener('click', () => chat.loadMoreConversations());
$('older').addEventListener('click', () => chat.loadOlder());
$('notice-close').addEventListener('click', hideNotice);
$('new-names').addEventListener('input', offerTitle);
$('composer').addEventListener('input', fitComposer);
$('composer').addEventListener('keydown', (event) => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit();
  }
});
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
