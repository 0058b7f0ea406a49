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
  async call(method, path, body) {
    const attempt = () => request(`/api${path}`, {
      method,
      headers: { Authorization: `Bearer ${this.me.token}`, 'Content-Type': 'application/json' },
      body: body && JSON.stringify(body),
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
