// The page of the demonstration: log in by name, talk in as many windows as there are people.
//
// REST goes through the master, the socket straight to the chat service. The socket is connected first and the
// conversations are loaded after that, on every connection anew: so nothing is missed between the two.

import { connect } from './chat-client.js';
import { avatar, avatarOf, nameIn, nameOfId, titleOf, userIdOf, userIdsOf } from './people.js';
import { Thread } from './thread.js';
import { shortTimeOf, Timeline } from './timeline.js';

const REST_TIMEOUT = 20_000;
const RELOAD_DELAY = 3000;
const NEAR = 80;
const STATES = {
  connecting: 'Connecting…',
  connected: 'Connected',
  offline: 'Offline, trying again',
  refused: 'Refused',
};

const $ = (id) => document.getElementById(id);

const conversations = new Map();
const threads = new Map();
const withNews = new Set();
const drafts = new Map();

let me = null;
let client = null;
let timeline = null;
let openId = null;
let moreConversations = null;
let loadingOlder = false;
let reload = null;
let atEnd = true;

// --- The master -----------------------------------------------------------------------------------------------

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.timeout(REST_TIMEOUT) });
  } catch {
    throw new Error('The server cannot be reached');
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok) {
    const message = answer?.error ?? `The server answered ${response.status}`;
    throw Object.assign(new Error(message), { status: response.status });
  }
  return answer;
}

async function logIn(name) {
  const answer = await request('/login', { method: 'POST', body: JSON.stringify({ name }) });
  me = { ...answer, name };
  return me;
}

async function api(method, path, body) {
  const call = () => request(`/api${path}`, {
    method,
    headers: { Authorization: `Bearer ${me.token}`, 'Content-Type': 'application/json' },
    body: body && JSON.stringify(body),
  });
  try {
    return await call();
  } catch (error) {
    if (error.status !== 401) {
      throw error;
    }
    await logIn(me.name);
    return call();
  }
}

// --- Logging in -----------------------------------------------------------------------------------------------

async function enter(name) {
  $('login-button').disabled = true;
  $('login-error').textContent = '';
  try {
    userIdOf(name);
    await logIn(name);
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
  client.close();
  sessionStorage.removeItem('name');
  location.replace('/');
}

function start() {
  const name = nameOfId(me.userId);
  document.title = `${name} · Chat`;
  $('login-screen').hidden = true;
  $('chat-screen').hidden = false;
  $('me-name').textContent = name;
  $('me-avatar').replaceChildren(avatar(me.userId, name));
  timeline = new Timeline($('message-list'), me.userId, { retry: sendAgain, discard });
  client = connect(me.socketUrl, { token: nextToken(me.token) });
  client.on('state', showState);
  client.on('message:new', receive);
  client.on('conversation:new', (conversation) => {
    keep(conversation);
    draw();
  });
  client.on('error', ({ message, event }) => {
    // A message that was refused says so itself.
    if (event !== 'message:send') {
      notify(message);
    }
  });
  route();
}

function nextToken(first) {
  let token = first;
  return async () => {
    const next = token ?? (await logIn(me.name)).token;
    token = null;
    return next;
  };
}

function showState(state, reason) {
  $('connection').textContent = STATES[state];
  $('connection').dataset.state = state;
  if (state === 'connected') {
    sendWaiting();
    load();
  } else {
    threads.forEach((thread) => {
      thread.synced = false;
    });
  }
  if (state === 'refused') {
    notify(`The chat service ended the connection (${reason}). Reload the page to connect again.`);
  }
}

// --- Conversations --------------------------------------------------------------------------------------------

async function load() {
  clearTimeout(reload);
  const loaded = await attempt(async () => {
    const before = [...conversations.keys()];
    const { items, nextCursor } = await api('GET', '/conversations?limit=100');
    if (!nextCursor) {
      const listed = new Set(items.map(({ id }) => id));
      before.filter((id) => !listed.has(id)).forEach((id) => conversations.delete(id));
    }
    items.forEach(keep);
    moreConversations = nextCursor;
    $('chat-screen').dataset.loaded = '';
    $('notice').hidden = true;
  });
  route();
  if (!loaded) {
    loadLater();
  }
}

/** The socket may be back before the rest is. */
function loadLater() {
  clearTimeout(reload);
  reload = setTimeout(() => client.state === 'connected' && load(), RELOAD_DELAY);
}

async function loadMoreConversations() {
  await attempt(async () => {
    const parameters = query({ limit: 100, cursor: moreConversations });
    const { items, nextCursor } = await api('GET', `/conversations?${parameters}`);
    items.forEach(keep);
    moreConversations = nextCursor;
  });
  draw();
}

function keep(conversation) {
  const held = conversations.get(conversation.id)?.lastMessage;
  const kept = { ...conversation };
  if (held && held.seq > (kept.lastMessage?.seq ?? 0)) {
    kept.lastMessage = held;
  } else if (held && held.seq < kept.lastMessage.seq) {
    noteNews(kept.lastMessage);
  }
  conversations.set(kept.id, kept);
}

function noteNews(message) {
  const seen = message.conversationId === openId && document.visibilityState === 'visible';
  if (message.senderId !== me.userId && !seen) {
    withNews.add(message.conversationId);
  }
}

async function startConversation() {
  const title = $('new-title').value.trim();
  $('new-error').textContent = '';
  $('new-button').disabled = true;
  try {
    const participantIds = othersOf($('new-names').value);
    const body = participantIds.length === 1
      ? { type: 'direct', participantIds }
      : { type: 'group', participantIds, title: title || groupTitle(participantIds) };
    const conversation = await api('POST', '/conversations', body);
    keep(conversation);
    $('new-form').reset();
    $('new-title-row').hidden = true;
    location.hash = conversation.id;
  } catch (error) {
    $('new-error').textContent = error.message;
  } finally {
    $('new-button').disabled = false;
  }
}

function othersOf(text) {
  const others = userIdsOf(text).filter((userId) => userId !== me.userId);
  if (others.length === 0) {
    throw new Error('Type the name of somebody else.');
  }
  return others;
}

function groupTitle(participantIds) {
  return [me.userId, ...participantIds].map(nameOfId).join(', ').slice(0, 200);
}

function offerTitle() {
  const others = $('new-names').value.split(',').filter((name) => name.trim() !== '');
  $('new-title-row').hidden = others.length < 2;
}

// --- The open conversation ------------------------------------------------------------------------------------

function route() {
  const id = location.hash.slice(1);
  const changed = id !== openId;
  if (changed && openId) {
    drafts.set(openId, $('composer').value);
  }
  openId = conversations.has(id) ? id : null;
  withNews.delete(openId);
  draw();
  if (openId && changed) {
    $('composer').value = drafts.get(id) ?? '';
    fitComposer();
    // On a phone the focus would bring up the keyboard over what was opened to be read.
    if (matchMedia('(pointer: fine)').matches) {
      $('composer').focus();
    }
  }
  if (openId && !threadOf(openId).synced) {
    loadLatest(openId);
  }
}

function threadOf(id) {
  if (!threads.has(id)) {
    threads.set(id, new Thread());
  }
  return threads.get(id);
}

async function loadLatest(id) {
  $('log').ariaBusy = 'true';
  const loaded = await attempt(async () => {
    threadOf(id).addLatest(await api('GET', `/conversations/${id}/messages?limit=50`), me.userId);
  });
  draw();
  $('log').ariaBusy = 'false';
  if (!loaded) {
    loadLater();
  }
}

async function loadOlder() {
  const thread = threadOf(openId);
  const { cursor } = thread;
  if (!cursor || loadingOlder) {
    return;
  }
  loadingOlder = true;
  $('log').ariaBusy = 'true';
  await attempt(async () => {
    const page = await api('GET', `/conversations/${openId}/messages?${query({ limit: 50, before: cursor })}`);
    if (thread.cursor === cursor) {
      thread.addOlder(page, me.userId);
    }
  });
  draw();
  $('log').ariaBusy = 'false';
  loadingOlder = false;
}

async function receive(message) {
  const { conversationId } = message;
  threadOf(conversationId).add(message, message.senderId === me.userId);
  if (!conversations.has(conversationId)) {
    await attempt(async () => keep(await api('GET', `/conversations/${conversationId}`)));
  }
  const conversation = conversations.get(conversationId);
  if (conversation && message.seq > (conversation.lastMessage?.seq ?? 0)) {
    conversation.lastMessage = message;
    noteNews(message);
  }
  draw();
}

// --- Sending --------------------------------------------------------------------------------------------------

function submit() {
  const content = $('composer').value;
  if (content.trim() === '') {
    return;
  }
  $('composer').value = '';
  fitComposer();
  send(openId, { clientMessageId: newId(), content, createdAt: new Date().toISOString() });
  $('log').scrollTop = $('log').scrollHeight;
}

async function send(conversationId, message) {
  const thread = threadOf(conversationId);
  const { clientMessageId, content } = message;
  thread.addOutgoing({ ...message, status: 'pending' });
  draw();
  try {
    const answer = await client.emit('message:send', { conversationId, content, clientMessageId });
    if (answer.ok) {
      await receive(answer.message);
    } else {
      thread.addOutgoing({ ...message, status: 'failed', error: answer.error.message });
    }
  } catch (error) {
    // Whether it arrived or not: the id makes it one message however often it is sent.
    const status = error.code === 'DISCONNECTED' ? 'waiting' : 'failed';
    thread.addOutgoing({ ...message, status, error: error.message });
  }
  draw();
}

function sendWaiting() {
  for (const [conversationId, thread] of threads) {
    for (const message of thread.outgoing.filter(({ status }) => status === 'waiting')) {
      send(conversationId, message);
    }
  }
}

function sendAgain(clientMessageId) {
  const message = threadOf(openId).outgoing.find((one) => one.clientMessageId === clientMessageId);
  send(openId, message);
}

function discard(clientMessageId) {
  threadOf(openId).removeOutgoing(clientMessageId);
  draw();
}

function newId() {
  if (crypto.randomUUID) {
    return crypto.randomUUID();
  }
  // Browsers keep randomUUID from pages that come over plain HTTP from another machine.
  const bytes = [...crypto.getRandomValues(new Uint8Array(16))];
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

// --- Drawing --------------------------------------------------------------------------------------------------

function draw() {
  drawConversations();
  drawThread();
}

function drawConversations() {
  const latestFirst = [...conversations.values()]
    .sort((one, other) => timeOfLast(other).localeCompare(timeOfLast(one)));
  const loaded = 'loaded' in $('chat-screen').dataset;
  const focused = document.activeElement?.dataset.conversationId;
  $('conversation-list').replaceChildren(...latestFirst.map(conversationItem));
  if (focused) {
    $('conversation-list').querySelector(`[data-conversation-id="${CSS.escape(focused)}"]`)?.focus();
  }
  $('more-conversations').hidden = !moreConversations;
  $('no-conversations').hidden = !loaded || conversations.size > 0;
  $('nothing-title').textContent = loaded ? `Hello, ${nameOfId(me.userId)}` : 'One moment…';
  $('nothing-text').textContent = conversations.size > 0
    ? 'Choose a conversation, or start one with somebody by name.'
    : 'Your messages show up here.';
  $('nothing-text').hidden = !loaded;
}

function timeOfLast(conversation) {
  return (conversation.lastMessage ?? conversation).createdAt;
}

function conversationItem(conversation) {
  const { id } = conversation;
  const news = withNews.has(id);
  const link = element('a', 'conversation');
  link.href = `#${id}`;
  Object.assign(link.dataset, { testid: 'conversation-item', conversationId: id, news });
  if (id === openId) {
    link.ariaCurrent = 'true';
  }
  link.append(
    avatarOf(conversation, me.userId),
    element('span', 'conversation-title', titleOf(conversation, me.userId)),
    element('time', 'conversation-time', shortTimeOf(timeOfLast(conversation))),
    element('span', 'conversation-last', previewOf(conversation)),
    element('span', 'news', news ? 'New' : ''),
  );
  const item = document.createElement('li');
  item.append(link);
  return item;
}

function previewOf(conversation) {
  const { lastMessage, type } = conversation;
  if (!lastMessage) {
    return 'No messages yet';
  }
  const text = lastMessage.deletedAt ? 'This message was deleted' : lastMessage.content;
  if (lastMessage.senderId === me.userId) {
    return `You: ${text}`;
  }
  return type === 'group' ? `${nameIn(conversation, lastMessage.senderId)}: ${text}` : text;
}

function drawThread() {
  const conversation = conversations.get(openId);
  $('chat-screen').dataset.view = conversation ? 'thread' : 'list';
  $('thread').hidden = !conversation;
  $('nothing-open').hidden = Boolean(conversation);
  if (!conversation) {
    return;
  }
  const thread = threadOf(openId);
  drawHeader(conversation);
  keepingPlace(conversation, () => {
    $('older').hidden = !thread.cursor;
    $('no-messages').hidden = !thread.synced || thread.messages.length + thread.outgoing.length > 0;
    timeline.draw(conversation, thread);
  });
}

function drawHeader(conversation) {
  const { participants, participantCount, type } = conversation;
  $('thread-title').textContent = titleOf(conversation, me.userId);
  $('thread-avatar').replaceChildren(avatarOf(conversation, me.userId));
  const names = participants.map(({ userId }) => (userId === me.userId ? 'You' : nameIn(conversation, userId)));
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

function element(tag, className, text = '') {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function fitComposer() {
  const composer = $('composer');
  composer.style.height = 'auto';
  composer.style.height = `${composer.scrollHeight}px`;
}

function notify(text) {
  $('notice-text').textContent = text;
  $('notice').hidden = false;
}

async function attempt(act) {
  try {
    await act();
    return true;
  } catch (error) {
    notify(error.message);
    return false;
  }
}

function query(parameters) {
  return new URLSearchParams(parameters);
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
$('more-conversations').addEventListener('click', loadMoreConversations);
$('older').addEventListener('click', loadOlder);
$('notice-close').addEventListener('click', () => {
  $('notice').hidden = true;
});
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
    loadOlder();
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
  if (me && document.visibilityState === 'visible') {
    withNews.delete(openId);
    draw();
  }
});

const known = new URLSearchParams(location.search).get('name') ?? sessionStorage.getItem('name');
if (known) {
  enter(known);
} else {
  showLogin('', '');
}
