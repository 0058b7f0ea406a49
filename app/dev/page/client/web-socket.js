// As much of socket.io-client as chat-client.js asks for: Socket.IO 5 over Engine.IO 4, on a WebSocket alone, in the
// namespace "/". It connects when told to and not again by itself.

const ENGINE = { OPEN: '0', CLOSE: '1', PING: '2', PONG: '3', MESSAGE: '4' };
const SOCKET = { CONNECT: '0', DISCONNECT: '1', EVENT: '2', ACK: '3', CONNECT_ERROR: '4' };

/**
 * Make a socket, which `connect()` opens.
 *
 * @param {string} url where the service listens, `http(s)://host:port` or `ws(s)://host:port`
 * @param {{ auth: (send: (data: object) => void) => void }} options `auth` is asked at every connect
 * @returns {Socket}
 */
export function io(url, { auth }) {
  return new Socket(url, auth);
}

class Socket {
  connected = false;
  #url;
  #auth;
  #webSocket = null;
  #listeners = { connect() {}, connect_error() {}, disconnect() {} };
  #hear = () => {};
  #acknowledgements = new Map();
  #nextId = 0;
  #longestSilence = 0;
  #watchdog = null;

  constructor(url, auth) {
    this.#url = new URL('/socket.io/?EIO=4&transport=websocket', url.replace(/^http/, 'ws'));
    this.#auth = auth;
  }

  /**
   * Be told of `connect`, `connect_error` (an Error) or `disconnect` (a reason, in socket.io-client's words).
   *
   * @param {'connect' | 'connect_error' | 'disconnect'} event
   * @param {(fact?: any) => void} listener
   */
  on(event, listener) {
    this.#listeners[event] = listener;
  }

  /** @param {(event: string, data: any) => void} listener gets every event of the service */
  onAny(listener) {
    this.#hear = listener;
  }

  connect() {
    const webSocket = new WebSocket(this.#url);
    const ifCurrent = (act) => (event) => webSocket === this.#webSocket && act(event);
    webSocket.onmessage = ifCurrent(({ data }) => this.#receive(data));
    webSocket.onclose = ifCurrent(() => this.#lose('transport close'));
    this.#webSocket = webSocket;
  }

  disconnect() {
    if (this.connected) {
      this.#send(SOCKET.DISCONNECT, '');
    }
    this.#end('io client disconnect');
  }

  /**
   * Bound the wait for an acknowledgement.
   *
   * @param {number} milliseconds
   * @returns {{ emitWithAck: (event: string, data: any) => Promise<any> }} rejected where none came, and then
   *   nobody knows whether the event arrived
   */
  timeout(milliseconds) {
    return {
      emitWithAck: (event, data) => new Promise((resolve, reject) => {
        const id = this.#nextId++;
        const timer = setTimeout(() => {
          this.#acknowledgements.delete(id);
          reject(new Error('operation has timed out'));
        }, milliseconds);
        this.#acknowledgements.set(id, { resolve, reject, timer });
        this.#send(SOCKET.EVENT, id + JSON.stringify([event, data]));
      }),
    };
  }

  #receive(packet) {
    switch (packet[0]) {
      case ENGINE.OPEN: {
        const { pingInterval, pingTimeout } = JSON.parse(packet.slice(1));
        this.#longestSilence = pingInterval + pingTimeout;
        this.#auth((data) => this.#send(SOCKET.CONNECT, JSON.stringify(data)));
        break;
      }
      case ENGINE.PING:
        this.#webSocket.send(ENGINE.PONG);
        break;
      case ENGINE.CLOSE:
        this.#lose('transport close');
        return;
      case ENGINE.MESSAGE:
        this.#receiveMessage(packet[1], packet.slice(2));
        break;
    }
    this.#listen();
  }

  #receiveMessage(type, text) {
    const [, id, json] = /^(\d*)(.*)$/s.exec(text);
    const data = json === '' ? undefined : JSON.parse(json);
    switch (type) {
      case SOCKET.CONNECT:
        this.connected = true;
        this.#listeners.connect();
        break;
      case SOCKET.EVENT:
        this.#hear(...data);
        break;
      case SOCKET.ACK:
        this.#acknowledge(Number(id), data[0]);
        break;
      case SOCKET.CONNECT_ERROR:
        this.#end();
        this.#listeners.connect_error(new Error(data.message));
        break;
      case SOCKET.DISCONNECT:
        this.#end('io server disconnect');
        break;
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

  #lose(reason) {
    if (this.connected) {
      this.#end(reason);
    } else {
      this.#end();
      this.#listeners.connect_error(new Error('websocket error'));
    }
  }

  #end(reason) {
    clearTimeout(this.#watchdog);
    const wasConnected = this.connected;
    const webSocket = this.#webSocket;
    this.connected = false;
    this.#webSocket = null;
    webSocket?.close();
    for (const { reject, timer } of this.#acknowledgements.values()) {
      clearTimeout(timer);
      reject(new Error('socket has been disconnected'));
    }
    this.#acknowledgements.clear();
    if (wasConnected) {
      this.#listeners.disconnect(reason);
    }
  }

  /** The service sends a ping now and then: where none comes any more, the connection is dead. */
  #listen() {
    clearTimeout(this.#watchdog);
    if (this.#webSocket) {
      this.#watchdog = setTimeout(() => this.#lose('ping timeout'), this.#longestSilence);
    }
  }

  #send(type, text) {
    // One that is closing would only complain: what was not acknowledged is sent again on the next.
    if (this.#webSocket?.readyState === WebSocket.OPEN) {
      this.#webSocket.send(ENGINE.MESSAGE + type + text);
    }
  }
}
