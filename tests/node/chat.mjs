// One ChatClient, for the tests: what it tells is written to standard output and what it shall do is read from
// standard input, one JSON object a line. The end of the input is the end of the client.

import { createInterface } from 'node:readline';
import { ChatClient } from '../../app/dev/page/client/chat-client.js';

const TOLD = [
  'state', 'outgoing', 'gap', 'lost', 'joined', 'error', 'message:new', 'message:updated', 'message:deleted',
  'reaction:added', 'reaction:removed', 'participant:added', 'participant:removed', 'conversation:updated',
  'conversation:new', 'conversation:deleted',
];

const { url, transports, tokens } = JSON.parse(process.argv[2]);

const say = (what, facts = {}) => process.stdout.write(`${JSON.stringify({ what, ...facts })}\n`);

async function viaSocketIo() {
  const { io } = await import('socket.io-client');
  return { io: (address, options) => io(address, { ...options, transports }) };
}

const chat = new ChatClient({
  url,
  getToken: () => {
    say('token asked');
    return tokens.length > 1 ? tokens.shift() : tokens[0];
  },
  ...transports && await viaSocketIo(),
});

TOLD.forEach((event) => chat.on(event, (data) => say('event', { event, data: [data] })));

const answering = (number, promise) => promise.then(
  (answer) => say('ack', { number, answer: [answer] }),
  ({ code, message }) => say('ack', { number, answer: [{ ok: false, code, message }] }),
);

const commands = {
  connect: () => chat.connect(),
  close: () => chat.close(),
  track: ({ conversationId, seq }) => chat.track(conversationId, seq),
  emit: ({ number, event, data }) => answering(number, chat.emit(event, ...data)),
  send: ({ number, conversationId, message }) => answering(number, chat.send(conversationId, message)),
  retry: ({ number, clientMessageId }) => answering(number, chat.retry(clientMessageId)),
  discard: ({ clientMessageId }) => chat.discard(clientMessageId),
  outgoing: ({ number, conversationId }) => say('ack', { number, answer: [chat.outgoing(conversationId)] }),
};

const input = createInterface({ input: process.stdin });
input.on('line', (line) => {
  const command = JSON.parse(line);
  commands[command.do](command);
});
input.on('close', () => chat.close());
