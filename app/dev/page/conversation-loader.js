// Loads conversations from the service by way of the master.

const PAGE = 100;

export class ConversationLoader {
  #master;
  #to;
  #nextPage = undefined;
  // The conversations that are being loaded, and whether they have to be once more.
  #underWay = new Map();

  /**
   * @param {import('./master.js').Master} master
   * @param {{ loaded: (conversation: object) => void, gone: (id: string) => void,
   *   failed: (message: string) => void }} to
   */
  constructor(master, to) {
    this.#master = master;
    this.#to = to;
  }

  /** @returns {boolean} whether there are more conversations than were listed */
  get hasMore() {
    return this.#nextPage !== undefined;
  }

  /**
   * Load the latest conversations; what of those known is not listed any more is gone.
   *
   * @param {string[]} known
   */
  async loadLatest(known) {
    const ids = new Set(await this.#loadPage({ limit: PAGE }));
    if (!this.hasMore) {
      known.filter((id) => !ids.has(id)).forEach(this.#to.gone);
    }
  }

  /** Load the page after those that were listed. */
  async loadMore() {
    await this.#loadPage({ limit: PAGE, cursor: this.#nextPage });
  }

  /** Load a conversation, or what has changed of it; once more where it changes while it is loaded. */
  async refresh(id) {
    const isUnderWay = this.#underWay.has(id);
    this.#underWay.set(id, isUnderWay);
    if (isUnderWay) {
      return;
    }
    do {
      this.#underWay.set(id, false);
      await this.#loadOne(id);
    } while (this.#underWay.get(id));
    this.#underWay.delete(id);
  }

  async #loadOne(id) {
    try {
      this.#to.loaded(await this.#master.call('GET', `/conversations/${id}`));
    } catch (error) {
      if (error.status === 403 || error.status === 404) {
        this.#to.gone(id);
      } else {
        this.#to.failed(error.message);
      }
    }
  }

  async #loadPage(parameters) {
    const { items, nextCursor } = await this.#master.call('GET', `/conversations?${new URLSearchParams(parameters)}`);
    items.forEach(this.#to.loaded);
    this.#nextPage = nextCursor;
    return items.map(({ id }) => id);
  }
}
