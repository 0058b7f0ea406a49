// The menu of a message: quick reactions, and what its author may do with it.

import { button } from './elements.js';

const EMOJI = ['👍', '❤️', '😂', '🎉', '😮', '😢'];
const NAMES = ['Thumbs up', 'Heart', 'Laughing', 'Party', 'Surprised', 'Sad'];
const MARGIN = 8;

export class MessageMenu {
  #popover;
  #actions;

  /**
   * @param {HTMLElement} popover which closes itself by Escape, or by a click elsewhere
   * @param {{ react: (message: object, emoji: string) => void, edit: (message: object) => void,
   *   remove: (message: object) => void }} actions
   */
  constructor(popover, actions) {
    this.#popover = popover;
    this.#actions = actions;
  }

  /**
   * @param {object} message
   * @param {boolean} isOwn
   * @param {boolean} mayDelete
   * @param {HTMLElement} opener the button beside which it opens, and to which the focus goes back
   */
  open(message, isOwn, mayDelete, opener) {
    const then = (act) => () => {
      this.#popover.hidePopover();
      act(message);
    };
    const reactions = document.createElement('div');
    reactions.className = 'quick';
    reactions.append(...EMOJI.map((emoji, index) => {
      const quick = button('quick-reaction', emoji, 'quick-reaction', then(() => this.#actions.react(message, emoji)));
      quick.ariaLabel = NAMES[index];
      return quick;
    }));
    const entries = [
      isOwn && button('menu-entry', 'Edit', 'edit-button', then(this.#actions.edit)),
      mayDelete && button('menu-entry danger', 'Delete', 'delete-button', then(this.#actions.remove)),
    ];
    this.#popover.replaceChildren(reactions, ...entries.filter(Boolean));
    opener.focus();
    this.#popover.showPopover();
    this.#place(opener.getBoundingClientRect());
    reactions.firstElementChild.focus();
  }

  #place({ left, right, top, bottom }) {
    const { offsetWidth, offsetHeight, style } = this.#popover;
    const isRight = (left + right) / 2 > innerWidth / 2;
    const wanted = isRight ? right - offsetWidth : left;
    style.left = `${Math.max(MARGIN, Math.min(wanted, innerWidth - offsetWidth - MARGIN))}px`;
    const below = bottom + MARGIN / 2;
    style.top = `${below + offsetHeight > innerHeight ? top - offsetHeight - MARGIN / 2 : below}px`;
  }
}
