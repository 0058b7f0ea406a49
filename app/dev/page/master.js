// The REST API, by way of the master: it signs the token, and passes the calls on to the chat service.

const TIMEOUT = 20_000;

export class Master {
  /** Whose token this window holds: `{ userId, token, socketUrl, name }`, once logged in. */
  me = null;

  /**
   * Log in, or renew the token.
   *
   * @param {string} name
   * @returns {Promise<{ userId: string, token: string, socketUrl: string, name: string }>}
   */
  async logIn(name) {
    this.me = { ...await request('/login', { method: 'POST', body: JSON.stringify({ name }) }), name };
    return this.me;
  }

  /**
   * Make what asks for a token: that of the login at first, and a new one every time after.
   *
   * @returns {() => Promise<string>}
   */
  tokens() {
    let { token } = this.me;
    return async () => {
      const next = token ?? (await this.logIn(this.me.name)).token;
      token = null;
      return next;
    };
  }

  /**
   * Call the chat service.
   *
   * @param {string} method
   * @param {string} path after `/api`
   * @param {object} [body]
   * @returns {Promise<any>} the answer; rejected with a message that can be shown
   */
  call(method, path, body) {
    return this.#request(method, `/api${path}`, body && JSON.stringify(body), 'application/json');
  }

  /**
   * Hand in a file, which stays with the master.
   *
   * @param {File} file
   * @returns {Promise<{ externalFileId: string, label: string }>} an attachment that refers to it
   */
  async upload(file) {
    const { externalFileId } = await this.#request('POST', '/files', file, 'application/octet-stream');
    return { externalFileId, label: file.name.slice(0, 200) };
  }

  /** @returns {Promise<object[]>} the messages that came while this user was away, which are read by that */
  async takeNotifications() {
    return (await this.#request('POST', '/notifications/read')).items;
  }

  async #request(method, path, body, type) {
    const attempt = () => request(path, {
      method,
      headers: { Authorization: `Bearer ${this.me.token}`, ...type && { 'Content-Type': type } },
      body,
    });
    try {
      return await attempt();
    } catch (error) {
      if (error.status !== 401) {
        throw error;
      }
      await this.logIn(this.me.name);
      return attempt();
    }
  }
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.timeout(TIMEOUT) });
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
