// A frontend in TypeScript, as the compiler sees it: what must be allowed, and what must not.

import { io } from 'socket.io-client';
import { ChatClient, ChatError, type ClientEvents, type Events, type Message, type Outgoing, type State }
  from '../../app/dev/page/client/chat-client.js';

const chat = new ChatClient({ url: 'https://chat.example.com', getToken: async () => 'token' });
const overSocketIo = new ChatClient({ url: 'https://chat.example.com', getToken: () => 'token', io });

const off: () => void = chat.on('message:new', (message) => {
  const content: string = message.content;
  const label: string | undefined = message.attachments[0]?.label;
  console.log(content, label, message.deletedAt?.slice(0, 10));
});
chat.on('state', ({ state, reason }) => console.log(state satisfies State, reason));
chat.on('outgoing', (outgoing: Outgoing) => console.log(outgoing.error?.code, outgoing.message?.seq));
chat.on('conversation:updated', ({ title }) => console.log(title?.toUpperCase()));
off();

chat.connect();
chat.track('conv_1', 7);
const sent: Promise<Message> = chat.send('conv_1', { content: 'Hello', attachments: [{ externalFileId: 'file_1' }] });
const edited = await chat.emit('message:edit', { messageId: 'msg_1', content: 'Hello!' });
console.log(edited.message.updatedAt, (await chat.emit('presence:get', { userIds: [] })).online.length);
sent.catch((error: unknown) => error instanceof ChatError && error.code === 'RATE_LIMITED');
overSocketIo.close();

// @ts-expect-error there is no such event
chat.on('message:shouted', () => {});
// @ts-expect-error an edit names its message
await chat.emit('message:edit', { content: 'Hello!' });
// @ts-expect-error a state is asked for, not set
chat.state = 'connected';
// @ts-expect-error a message has a content
chat.send('conv_1', {});
// @ts-expect-error no such code is sent
sent.catch((error: ChatError) => error.code === 'TEAPOT');

export type Names = [keyof Events, keyof ClientEvents];
