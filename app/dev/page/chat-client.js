// A client of the chat service: Socket.IO 5 over Engine.IO 4, on a WebSocket, in the namespace "/".
//
// A page of your own may as well use socket.io-client; this one is short enough to read, and needs no build.

const ENGINE = { OPEN: '0', CLOSE: '1', PING: '2', PONG: '3', MESSAGE: '4' };
const SOCKET = { CONNECT: '0', DISCONNECT: '1', EVENT: '2', ACK: '3', CONNECT_ERROR: '4' };

const CONNECT_TIMEOUT = 10_000;
const ACK_TIMEOUT = 10_000;
const FIRST_DELAY = 500;
const LONGEST_DELAY = 15_000;

/**
 * Connect to the chat service, and stay connected until `close()` or a refusal.
 *
 * @param {string} url where the service listens, `http(s)://host:port`
 * @param {{ token: () => string | Promise<string> }} options `token` is asked for the first token, and for a new
 *   one whenever the service refuses the last
 * @returns {ChatClient}
 */
export function connect(url, { token }) {
  return new ChatClient(url, token);
}

/**
 * A connection that comes back by itself.
 *
 * Besides the events of the service there is `state`, with one of
 * `connecting`, `connected`, `offline` (it will try again) and `refused` (it will not), and a reason.
 */
class ChatClient {
  #url;
  #askToken;
  #token = null;
  #renewed = false;
  #state = 'offline';
  #webSocket = null;
  #listeners = new Map();
  #acknowledgements = new Map();
  #nextId = 0;
  #attempts = 0;
  #silence = CONNECT_TIMEOUT;
  #watchdog = null;
  #retry = null;
  #expired = false;
  #closed = new AbortController();

  constructor(url, askToken) {
    this.#url = new URL('/socket.io/?EIO=4&transport=websocket', url.replace(/^http/, 'ws'));
    this.#askToken = askToken;
    // A turn later, so that whoever connects can listen first.
    this.#retry = setTimeout(() => this.#open());
    // The browser may know of the network before a silence or the next attempt tells.
    const { signal } = this.#closed;
    addEventListener('offline', () => this.#loseNetwork(), { signal });
    addEventListener('online', () => this.#findNetwork(), { signal });
  }

  /** @returns {'connecting' | 'connected' | 'offline' | 'refused'} */
  get state() {
    return this.#state;
  }

  /**
   * Call `listener` on every such event.
   *
   * @param {string} event
   * @param {(...data: any[]) => void} listener
   */
  on(event, listener) {
    if (!this.#listeners.has(event)) {
      this.#listeners.set(event, new Set());
    }
    this.#listeners.get(event).add(listener);
  }

  /**
   * Call `listener` no more.
   *
   * @param {string} event
   * @param {(...data: any[]) => void} listener
   */
  off(event, listener) {
    this.#listeners.get(event)?.delete(listener);
  }

  /**
   * Send an event.
   *
   * @param {string} event
   * @param {any} data
   * @returns {Promise<any>} the acknowledgement; rejected with the `code` `DISCONNECTED` or `TIMEOUT` without one,
   *   and then nobody knows whether the event arrived
   */
  emit(event, data) {
    return new Promise((resolve, reject) => {
      if (this.#state !== 'connected') {
        reject(failure('DISCONNECTED', 'Not connected'));
        return;
      }
      const id = this.#nextId++;
      const timer = setTimeout(() => {
        this.#acknowledgements.delete(id);
        reject(failure('TIMEOUT', 'The chat service did not answer in time'));
      }, ACK_TIMEOUT);
      this.#acknowledgements.set(id, { resolve, reject, timer });
      this.#send(SOCKET.EVENT, id + JSON.stringify([event, data]));
    });
  }

  /** Disconnect, and do not come back. */
  close() {
    if (this.#state === 'connected') {
      this.#send(SOCKET.DISCONNECT, '');
    }
    this.#closed.abort();
    this.#stop('offline', 'closed');
  }

  #loseNetwork() {
    if (this.#state === 'connecting' || this.#state === 'connected') {
      this.#lose('no network');
    }
  }

  #findNetwork() {
    if (this.#state === 'offline') {
      clearTimeout(this.#retry);
      this.#open();
    }
  }

  async #open() {
    this.#enter('connecting');
    // Its timer is also what tells this attempt from a later one.
    const attempt = (this.#retry = setTimeout(() => this.#lose('timeout'), CONNECT_TIMEOUT));
    try {
      this.#token ??= await this.#askToken();
    } catch (error) {
      if (attempt === this.#retry) {
        this.#lose(error.message);
      }
      return;
    }
    if (attempt !== this.#retry) {
      return;
    }
    clearTimeout(attempt);
    const webSocket = new WebSocket(this.#url);
    const ifCurrent = (act) => (event) => webSocket === this.#webSocket && act(event);
    webSocket.onmessage = ifCurrent(({ data }) => this.#receive(data));
    webSocket.onclose = ifCurrent(() => this.#lose('closed'));
    this.#webSocket = webSocket;
    this.#silence = CONNECT_TIMEOUT;
    this.#listen();
  }

  #receive(packet) {
    switch (packet[0]) {
      case ENGINE.OPEN: {
        const { pingInterval, pingTimeout } = JSON.parse(packet.slice(1));
        this.#silence = pingInterval + pingTimeout;
        this.#send(SOCKET.CONNECT, JSON.stringify({ token: this.#token }));
        return;
      }
      case ENGINE.PING:
        this.#webSocket.send(ENGINE.PONG);
        break;
      case ENGINE.CLOSE:
        this.#lose('closed');
        return;
      case ENGINE.MESSAGE:
        this.#receiveMessage(packet[1], packet.slice(2));
        break;
    }
    // Until the CONNECT is answered, the watchdog counts from the beginning.
    if (this.#state === 'connected') {
      this.#listen();
    }
  }

  #receiveMessage(type, text) {
    const [, id, json] = /^(\d*)(.*)$/s.exec(text);
    const data = json === '' ? undefined : JSON.parse(json);
    switch (type) {
      case SOCKET.CONNECT:
        this.#attempts = 0;
        this.#renewed = false;
        this.#expired = false;
        this.#enter('connected');
        break;
      case SOCKET.EVENT:
        this.#expired ||= data[0] === 'error' && data[1].code === 'UNAUTHORIZED';
        this.#dispatch(...data);
        break;
      case SOCKET.ACK:
        this.#acknowledge(Number(id), data[0]);
        break;
      case SOCKET.CONNECT_ERROR:
        this.#refused(data.message);
        break;
      case SOCKET.DISCONNECT:
        if (this.#expired) {
          this.#token = null;
          this.#lose('expired');
        } else {
          this.#stop('refused', 'disconnected');
        }
        break;
    }
  }

  #refused(reason) {
    if (reason === 'unauthorized' && !this.#renewed) {
      this.#renewed = true;
      this.#token = null;
      this.#drop();
      this.#open();
    } else {
      this.#stop('refused', reason);
    }
  }

  #acknowledge(id, answer) {
    const waiting = this.#acknowledgements.get(id);
    if (waiting) {
      this.#acknowledgements.delete(id);
      clearTimeout(waiting.timer);
      waiting.resolve(answer);
    }
  }

  #stop(state, reason) {
    this.#drop();
    this.#enter(state, reason);
  }

  #lose(reason) {
    this.#stop('offline', reason);
    const longest = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** this.#attempts++);
    // Half of it by chance, or all clients of a pod that went would come back at once.
    this.#retry = setTimeout(() => this.#open(), longest * (0.5 + Math.random() / 2));
  }

  #drop() {
    clearTimeout(this.#retry);
    clearTimeout(this.#watchdog);
    this.#retry = null;
    const webSocket = this.#webSocket;
    this.#webSocket = null;
    webSocket?.close();
    for (const { reject, timer } of this.#acknowledgements.values()) {
      clearTimeout(timer);
      reject(failure('DISCONNECTED', 'The connection was lost'));
    }
    this.#acknowledgements.clear();
  }

  #listen() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#lose('silent'), this.#silence);
  }

  #send(type, text) {
    this.#webSocket.send(ENGINE.MESSAGE + type + text);
  }

  #enter(state, reason) {
    if (state !== this.#state) {
      this.#state = state;
      this.#dispatch('state', state, reason);
    }
  }

  #dispatch(event, ...data) {
    for (const listener of this.#listeners.get(event) ?? []) {
      listener(...data);
    }
  }
}

function failure(code, message) {
  return Object.assign(new Error(message), { code });
}
