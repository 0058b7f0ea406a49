// One connection that comes back by itself: its state, its token, and how long it waits.
//
//                    ┌────────────── a new token, at once ─────────────┐
//   closed ─▶ connecting ─▶ connected ─▶ offline (tries again) ─▶ connecting
//                 └─────────────┴──────▶ refused (a person must act)

const CONNECT_TIMEOUT = 15_000;
const ACK_TIMEOUT = 10_000;
const FIRST_DELAY = 500;
const LONGEST_DELAY = 15_000;
const REFRESH_AHEAD = 60_000;
const LONGEST_TIMER = 2 ** 31 - 1;

/** An error of the service by its `code`, or `DISCONNECTED`, `TIMEOUT`, `CLOSED` or `QUEUE_FULL`. */
export class ChatError extends Error {
  constructor({ code, message, details }) {
    super(message);
    this.name = 'ChatError';
    this.code = code;
    this.details = details;
  }
}

/**
 * How long to wait after so many failures in a row: half of it by chance, or all clients of a pod that went would
 * come back at once.
 *
 * @param {number} failures
 * @returns {number} milliseconds
 */
export function backoff(failures) {
  const longest = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures);
  return longest * (0.5 + Math.random() / 2);
}

export class Connection {
  #getToken;
  #socket;
  #changed;
  #state = 'closed';
  #token = null;
  #isNewToken = false;
  // Which attempt is the present one: what an earlier one brings comes too late.
  #attempt = 0;
  #failures = 0;
  #timer = null;
  #refresh = null;
  // The code of the last `error`, which tells why a DISCONNECT comes.
  #lastError = null;
  #network = new AbortController();

  /**
   * @param {{ url: string, getToken: () => string | Promise<string>, io: Function }} options
   * @param {{ changed: (state: string, reason?: string) => void, heard: (event: string, data: any) => void }} to
   */
  constructor({ url, getToken, io }, { changed, heard }) {
    this.#getToken = getToken;
    this.#changed = changed;
    this.#socket = io(url, {
      autoConnect: false,
      forceNew: true,
      // One place decides when to come back, whatever carries the packets.
      reconnection: false,
      auth: (send) => send({ token: this.#token }),
    });
    this.#socket.on('connect', () => this.#connected());
    this.#socket.on('connect_error', ({ message }) => this.#refused(message));
    this.#socket.on('disconnect', (reason) => this.#disconnected(reason));
    this.#socket.onAny((event, data) => {
      if (event === 'error') {
        this.#lastError = data.code;
      }
      heard(event, data);
    });
  }

  get isOpen() {
    return this.#state === 'connected';
  }

  open() {
    // A browser may know of the network before a silence or the next attempt tells.
    this.#network.abort();
    this.#network = new AbortController();
    const { signal } = this.#network;
    globalThis.addEventListener?.('offline', () => this.#loseNetwork(), { signal });
    globalThis.addEventListener?.('online', () => this.#findNetwork(), { signal });
    this.#connect();
  }

  close() {
    this.#network.abort();
    this.#end('closed');
  }

  /**
   * Send an event; gives the acknowledgement, or raises ChatError where it is none or tells of an error.
   *
   * @param {string} event
   * @param {object} data
   * @returns {Promise<any>}
   */
  async emit(event, data) {
    if (!this.isOpen) {
      throw new ChatError({ code: 'DISCONNECTED', message: 'Not connected' });
    }
    const attempt = this.#attempt;
    let answer;
    try {
      answer = await this.#socket.timeout(ACK_TIMEOUT).emitWithAck(event, data);
    } catch {
      throw new ChatError(attempt === this.#attempt
        ? { code: 'TIMEOUT', message: 'The chat service did not answer in time' }
        : { code: 'DISCONNECTED', message: 'The connection was lost' });
    }
    if (!answer.ok) {
      throw new ChatError(answer.error);
    }
    return answer;
  }

  async #connect() {
    clearTimeout(this.#timer);
    const attempt = ++this.#attempt;
    this.#timer = setTimeout(() => this.#lose('timeout'), CONNECT_TIMEOUT);
    this.#enter('connecting');
    try {
      this.#isNewToken = !isCurrent(this.#token);
      if (this.#isNewToken) {
        this.#token = await this.#getToken();
      }
    } catch (error) {
      if (attempt === this.#attempt) {
        this.#lose(error.message);
      }
      return;
    }
    if (attempt === this.#attempt) {
      this.#socket.connect();
    }
  }

  #connected() {
    clearTimeout(this.#timer);
    this.#failures = 0;
    this.#lastError = null;
    this.#planRefresh();
    this.#enter('connected');
  }

  #refused(message) {
    if (this.#state !== 'connecting') {
      return;
    }
    if (message === 'unauthorized' && !this.#isNewToken) {
      this.#renew();
    } else if (message === 'unauthorized' || message === 'forbidden') {
      this.#end('refused', message);
    } else {
      this.#lose('unreachable');
    }
  }

  #disconnected(reason) {
    if (this.#state !== 'connected') {
      return;
    }
    if (reason !== 'io server disconnect') {
      this.#lose(reason);
    } else if (this.#lastError === 'UNAUTHORIZED') {
      this.#renew();
    } else {
      this.#end('refused', this.#lastError ?? reason);
    }
  }

  /** Connect with a new token, at once. */
  #renew() {
    this.#token = null;
    clearTimeout(this.#refresh);
    this.#connect();
  }

  #lose(reason) {
    this.#end('offline', reason, () => {
      this.#timer = setTimeout(() => this.#connect(), backoff(this.#failures++));
    });
  }

  #end(state, reason, then = () => {}) {
    clearTimeout(this.#timer);
    clearTimeout(this.#refresh);
    this.#attempt += 1;
    const before = this.#state;
    // The socket says so as well: it shall be no news.
    this.#state = state;
    this.#socket.disconnect();
    then();
    if (state !== before) {
      this.#changed(state, reason);
    }
  }

  #loseNetwork() {
    if (this.#state === 'connecting' || this.#state === 'connected') {
      this.#lose('no network');
    }
  }

  #findNetwork() {
    if (this.#state === 'offline') {
      this.#connect();
    }
  }

  #planRefresh() {
    const left = expiryOf(this.#token) - Date.now();
    if (left <= 0) {
      return;
    }
    const delay = Math.max(1000, left - Math.min(REFRESH_AHEAD, left / 4));
    this.#refresh = setTimeout(() => this.#handInNewToken(), Math.min(delay, LONGEST_TIMER));
  }

  async #handInNewToken() {
    const attempt = this.#attempt;
    try {
      const token = await this.#getToken();
      await this.emit('auth:refresh', { token });
      this.#token = token;
    } catch {
      // There is time to try again; after that the service ends the connection, and the next one asks anew.
    }
    if (attempt === this.#attempt) {
      this.#planRefresh();
    }
  }

  #enter(state) {
    if (state !== this.#state) {
      this.#state = state;
      this.#changed(state);
    }
  }
}

function isCurrent(token) {
  return token !== null && expiryOf(token) > Date.now();
}

/** Read `exp` of a JWT (RFC 7519) as milliseconds; 0 where there is none. */
function expiryOf(token) {
  try {
    const payload = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
    return (JSON.parse(atob(payload)).exp ?? 0) * 1000;
  } catch {
    return 0;
  }
}
