// One socket of the npm client, for the tests: what happens to it is written to standard output and what it shall
// do is read from standard input, one JSON object a line. The end of the input is the end of the socket.

import { createInterface } from 'node:readline';
import { io } from 'socket.io-client';

const { url, token, ...options } = JSON.parse(process.argv[2]);

const socket = io(url, {
  auth: { token },
  reconnection: true,
  reconnectionAttempts: 10,
  reconnectionDelay: 1000,
  ...options,
});

const say = (what, facts = {}) => process.stdout.write(`${JSON.stringify({ what, ...facts })}\n`);

socket.on('connect', () => say('connect'));
socket.on('connect_error', ({ message }) => say('connect_error', { message, active: socket.active }));
// Whether a socket is active tells whether it will connect again by itself.
socket.on('disconnect', (reason) => say('disconnect', { reason, active: socket.active }));
socket.onAny((event, ...data) => say('event', { event, data }));
socket.io.on('reconnect', (attempt) => say('reconnect', { attempt }));
socket.io.on('open', () => {
  say('open', { transport: socket.io.engine.transport.name });
  socket.io.engine.on('upgrade', ({ name }) => say('upgrade', { transport: name }));
});

const commands = {
  emit: ({ number, event, data }) => {
    socket.emit(event, ...data, (...answer) => say('ack', { number, answer }));
  },
  connect: ({ token }) => {
    socket.auth = { token };
    socket.connect();
  },
};

// JSON has no bytes.
const revive = (_, value) => (value?.base64 === undefined ? value : Buffer.from(value.base64, 'base64'));

const input = createInterface({ input: process.stdin });
input.on('line', (line) => {
  const command = JSON.parse(line, revive);
  commands[command.do](command);
});
input.on('close', () => socket.close());
