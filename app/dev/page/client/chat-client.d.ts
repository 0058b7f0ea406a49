// The types of chat-client.js, and of what the chat service says over the socket.

/** ISO 8601 in UTC with milliseconds. */
export type Timestamp = string;

export interface Attachment {
  /** The id of a file that the host application keeps. */
  externalFileId: string;
  label?: string;
}

export interface Reaction {
  emoji: string;
  /** The first 50 people and the reader; `count` is of all. */
  userIds: string[];
  count: number;
}

export interface Message {
  id: string;
  conversationId: string;
  seq: number;
  senderId: string;
  content: string;
  attachments: Attachment[];
  reactions: Reaction[];
  clientMessageId?: string;
  createdAt: Timestamp;
  updatedAt: Timestamp;
  /** A deleted message stays as a tombstone that says nothing. */
  deletedAt?: Timestamp;
}

export interface Participant {
  userId: string;
  displayName?: string;
  avatarUrl?: string;
  role: 'owner' | 'member';
  joinedAt: Timestamp;
  lastReadSeq: number;
  lastReadAt?: Timestamp;
}

export interface Conversation {
  id: string;
  type: 'direct' | 'group';
  title?: string;
  metadata: Record<string, unknown>;
  createdBy: string;
  ownerId?: string;
  createdAt: Timestamp;
  updatedAt: Timestamp;
  lastSeq: number;
  lastMessage?: Message;
  /** 1000 means that or more; missing in `conversation:new`, which is the same for all. */
  unreadCount?: number;
  participantCount: number;
  participants: Participant[];
}

export type ServiceErrorCode =
  | 'VALIDATION_ERROR' | 'UNAUTHORIZED' | 'FORBIDDEN' | 'NOT_FOUND' | 'METHOD_NOT_ALLOWED' | 'CONFLICT'
  | 'PAYLOAD_TOO_LARGE' | 'RATE_LIMITED' | 'INTERNAL_ERROR' | 'SERVICE_UNAVAILABLE';

export interface ServiceError {
  code: ServiceErrorCode;
  message: string;
  details?: Record<string, unknown>;
}

/** What takes the next `seq` of its conversation. */
interface Change {
  conversationId: string;
  seq: number;
}

/** What the service tells, by the name of the event. */
export interface ServerEvents {
  'message:new': Message;
  'message:updated': Change & { messageId: string; content: string; updatedAt: Timestamp };
  'message:deleted': Change & { messageId: string; deletedAt: Timestamp };
  'reaction:added': Change & { messageId: string; emoji: string; userId: string };
  'reaction:removed': Change & { messageId: string; emoji: string; userId: string };
  'participant:added': Change & { participant: Participant; addedBy: string };
  'participant:removed': Change & { userId: string; removedBy: string };
  'conversation:updated': Change & {
    title: string | null;
    metadata: Record<string, unknown>;
    ownerId: string | null;
    updatedAt: Timestamp;
  };
  'conversation:new': Conversation;
  'conversation:deleted': { conversationId: string };
  'conversation:hidden': { conversationId: string };
  'message:read': {
    conversationId: string; messageId: string; userId: string; lastReadSeq: number; readAt: Timestamp;
  };
  'user:typing': { conversationId: string; userId: string; isTyping: boolean };
  'user:online': { userId: string; transition: number };
  'user:offline': { userId: string; transition: number };
  /** Something that this client sent failed, or (with the event `connect`) the connection ends. */
  error: ServiceError & { event: string };
}

/** What a client may send, and what it is answered with beside `ok`. */
export interface ClientEvents {
  'message:send': {
    data: { conversationId: string; content: string; attachments?: Attachment[]; clientMessageId?: string };
    answer: { message: Message };
  };
  'message:edit': { data: { messageId: string; content: string }; answer: { message: Message } };
  'message:delete': { data: { messageId: string }; answer: {} };
  /** Lapses by itself after 6 s. */
  'typing:start': { data: { conversationId: string }; answer: {} };
  'typing:stop': { data: { conversationId: string }; answer: {} };
  'presence:ping': { data: {}; answer: {} };
  'presence:get': { data: { userIds: string[] }; answer: { online: string[] } };
  /** ChatClient sends it by itself. */
  'auth:refresh': { data: { token: string }; answer: {} };
  /** ChatClient sends it by itself. */
  sync: {
    data: { conversations: Record<string, number>; since?: Timestamp };
    answer: { events: Record<string, EventPage | { error: ServiceError }>; joined: string[] };
  };
}

export interface EventPage {
  items: { seq: number; event: keyof ServerEvents; data: ServerEvents[keyof ServerEvents] }[];
  lastSeq: number;
  hasMore: boolean;
  gap: boolean;
}

/**
 * - `closed`: `connect()` was not called, or `close()` was
 * - `connecting`
 * - `syncing`: connected, and what was missed is on its way
 * - `connected`: nothing is missing
 * - `offline`: it tries again by itself, after a wait that grows, and at once when the browser is online again
 * - `refused`: it does not try again, because a person must act: the token is refused although it is new
 *   (`unauthorized`), does not grant `chat:read` (`forbidden`), or the user has opened too many sockets (`CONFLICT`)
 */
export type State = 'closed' | 'connecting' | 'syncing' | 'connected' | 'offline' | 'refused';

/** A message on its way. */
export interface Outgoing {
  clientMessageId: string;
  conversationId: string;
  content: string;
  attachments: Attachment[];
  createdAt: Timestamp;
  /** `waiting`: for the connection, or for its turn to be tried again. */
  status: 'sending' | 'waiting' | 'sent' | 'failed';
  /** As it is stored, once it is `sent`. */
  message?: Message;
  /** Why it `failed`. */
  error?: ChatError;
}

/** What the client itself tells, beside the events of the service. */
export interface LocalEvents {
  state: { state: State; reason?: string };
  /** A message was handed to `send`, or its status changed. */
  outgoing: Outgoing;
  /** Too much was missed, or too long ago: load this conversation afresh. It goes on after `lastSeq`. */
  gap: { conversationId: string; lastSeq: number };
  /** This user is no participant any more; the conversation is tracked no longer. */
  lost: { conversationId: string; error: ServiceError };
  /** Conversations that were entered while the client was away: load them. */
  joined: { conversationIds: string[] };
}

export type Events = ServerEvents & LocalEvents;

export class ChatError extends Error {
  /**
   * The service's, or `DISCONNECTED` or `TIMEOUT` (nobody knows whether the event arrived), `CLOSED` (by `close()`),
   * `QUEUE_FULL` (1,000 messages wait).
   */
  readonly code: ServiceErrorCode | 'DISCONNECTED' | 'TIMEOUT' | 'CLOSED' | 'QUEUE_FULL';
  readonly details?: Record<string, unknown>;
}

/** As much of socket.io-client's `Socket` as the client asks for. */
export interface SocketLike {
  on(event: 'connect' | 'connect_error' | 'disconnect', listener: (fact?: any) => void): unknown;
  onAny(listener: (event: string, ...data: any[]) => void): unknown;
  connect(): unknown;
  disconnect(): unknown;
  timeout(milliseconds: number): { emitWithAck(event: string, ...data: any[]): Promise<any> };
}

export interface Options {
  /** Where the chat service listens: `https://chat.example.com`. */
  url: string;
  /**
   * Asked for the token: at the first connect, before the token expires, and when it has expired or is refused.
   * Where it fails, the client tries again later.
   */
  getToken: () => string | Promise<string>;
  /** `io` of socket.io-client 4; without it the client opens a WebSocket itself, as browsers and Node 22 have it. */
  io?: (url: string, options: any) => SocketLike;
}

/**
 * A connection to the chat service that comes back by itself.
 *
 * Every change of a tracked conversation is handed on once and in the order of `seq`, over any number of
 * reconnects; what was missed is synced, and `gap` tells where it is no longer kept.
 */
export class ChatClient {
  constructor(options: Options);

  readonly state: State;

  connect(): void;

  /** Disconnect, and do not come back; messages that wait have failed with `CLOSED`. */
  close(): void;

  /**
   * Call `listener` on every such event.
   *
   * @returns what calls it no more
   */
  on<E extends keyof Events>(event: E, listener: (data: Events[E]) => void): () => void;

  /**
   * Send an event; rejected with a ChatError.
   *
   * @returns the acknowledgement
   */
  emit<E extends keyof ClientEvents>(
    event: E, data?: ClientEvents[E]['data'],
  ): Promise<{ ok: true } & ClientEvents[E]['answer']>;

  /**
   * Say up to which `seq` a conversation was loaded (its `lastSeq`): every later change is handed on.
   *
   * A conversation is tracked without it from `conversation:new`, or from its first change on this connection.
   */
  track(conversationId: string, seq: number): void;

  /** Forget a conversation; its next change, if one comes, tracks it again. */
  untrack(conversationId: string): void;

  /**
   * Send a message: once the service has it, whatever the network does until then.
   *
   * Messages of one conversation are stored in the order of these calls. Each is told as `outgoing` at once, for an
   * optimistic page. Rejected where the service refuses it; it then waits for `retry` or `discard`.
   */
  send(
    conversationId: string,
    message: { content: string; attachments?: Attachment[]; clientMessageId?: string },
  ): Promise<Message>;

  /** The messages of a conversation that are not stored yet, in order. */
  outgoing(conversationId: string): Outgoing[];

  /** Send a message again that has failed. */
  retry(clientMessageId: string): Promise<Message>;

  /** Forget a message that has failed. */
  discard(clientMessageId: string): void;
}
