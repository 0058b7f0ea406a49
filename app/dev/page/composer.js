// Where messages are written and edited, with a draft for each conversation.

import { button, element } from './elements.js';

const $ = (id) => document.getElementById(id);
const MAX_ATTACHMENTS = 10;

export class Composer {
  #actions;
  #drafts = new Map();
  #conversationId = null;
  #attachments = [];
  #editing = null;

  /**
   * @param {{ say: (content: string, attachments: object[]) => void,
   *   edit: (messageId: string, content: string) => Promise<boolean>, upload: (file: File) => Promise<object>,
   *   lastOwn: () => object | undefined, typing: (isTyping: boolean) => void,
   *   failed: (message: string) => void }} actions
   */
  constructor(actions) {
    this.#actions = actions;
    $('composer-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#submit();
    });
    $('composer').addEventListener('input', () => {
      this.#fit();
      actions.typing($('composer').value.trim() !== '' && !this.#editing);
    });
    $('composer').addEventListener('blur', () => actions.typing(false));
    $('composer').addEventListener('keydown', (event) => this.#press(event));
    $('composer').addEventListener('paste', ({ clipboardData }) => this.#attach(clipboardData.files));
    $('attach-button').addEventListener('click', () => $('attach-input').click());
    $('attach-input').addEventListener('change', async () => {
      await this.#attach($('attach-input').files);
      $('attach-input').value = '';
    });
    $('edit-cancel').addEventListener('click', () => this.#endEdit());
  }

  /** @param {string | null} conversationId for which one writes now */
  show(conversationId) {
    if (conversationId === this.#conversationId) {
      return;
    }
    if (this.#conversationId) {
      this.#leave();
    }
    this.#conversationId = conversationId;
    if (conversationId) {
      const { content, attachments } = this.#drafts.get(conversationId) ?? { content: '', attachments: [] };
      this.#write(content);
      this.#setAttachments(attachments);
      // On a phone the focus would bring up the keyboard over what was opened to be read.
      if (matchMedia('(pointer: fine)').matches) {
        $('composer').focus();
      }
    }
  }

  /** @param {object} message to be edited */
  edit(message) {
    if (!this.#editing) {
      this.#keepDraft();
    }
    this.#editing = message;
    $('edit-bar').hidden = false;
    $('attach-button').hidden = true;
    this.#setAttachments([]);
    this.#write(message.content);
    $('composer').focus();
  }

  #leave() {
    this.#actions.typing(false);
    if (this.#editing) {
      this.#endEdit();
    }
    this.#keepDraft();
  }

  #keepDraft() {
    this.#drafts.set(this.#conversationId, { content: $('composer').value, attachments: this.#attachments });
  }

  #endEdit() {
    this.#editing = null;
    $('edit-bar').hidden = true;
    $('attach-button').hidden = false;
    const { content, attachments } = this.#drafts.get(this.#conversationId);
    this.#write(content);
    this.#setAttachments(attachments);
    $('composer').focus();
  }

  async #submit() {
    const content = $('composer').value;
    if (this.#editing) {
      const { id } = this.#editing;
      if (content.trim() !== '' && await this.#actions.edit(id, content) && this.#editing?.id === id) {
        this.#endEdit();
      }
    } else if (content.trim() !== '' || this.#attachments.length > 0) {
      this.#actions.say(content, this.#attachments);
      this.#write('');
      this.#setAttachments([]);
    }
  }

  #press(event) {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.#submit();
    } else if (event.key === 'Escape' && this.#editing) {
      this.#endEdit();
    } else if (event.key === 'ArrowUp' && $('composer').value === '' && this.#actions.lastOwn()) {
      event.preventDefault();
      this.edit(this.#actions.lastOwn());
    }
  }

  async #attach(files) {
    const conversationId = this.#conversationId;
    for (const file of [...files].slice(0, MAX_ATTACHMENTS - this.#attachments.length)) {
      try {
        const attachment = await this.#actions.upload(file);
        if (conversationId === this.#conversationId && !this.#editing) {
          this.#setAttachments([...this.#attachments, attachment]);
        }
      } catch (error) {
        this.#actions.failed(`“${file.name}” was not attached: ${error.message}`);
      }
    }
  }

  #setAttachments(attachments) {
    this.#attachments = attachments;
    $('attached').hidden = attachments.length === 0;
    $('attached').replaceChildren(...attachments.map((attachment) => {
      const item = element('li', 'attached-file', attachment.label);
      const remove = button('quiet', '×', 'attached-remove', () => {
        this.#setAttachments(this.#attachments.filter((one) => one !== attachment));
      });
      remove.ariaLabel = `Remove ${attachment.label}`;
      item.append(remove);
      return item;
    }));
  }

  #write(content) {
    $('composer').value = content;
    this.#fit();
  }

  #fit() {
    const composer = $('composer');
    composer.style.height = 'auto';
    composer.style.height = `${composer.scrollHeight}px`;
  }
}
