// Short ways to make elements. Text goes in as text: nothing that people write is taken for HTML.

/**
 * Make an element.
 *
 * @param {string} tag
 * @param {string} className
 * @param {string | number} [text]
 * @returns {HTMLElement}
 */
export function element(tag, className, text = '') {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/**
 * Make a button.
 *
 * @param {string} className
 * @param {string} text
 * @param {string} testId
 * @param {(event: Event) => void} act
 * @returns {HTMLButtonElement}
 */
export function button(className, text, testId, act) {
  const made = element('button', className, text);
  made.type = 'button';
  made.dataset.testid = testId;
  made.addEventListener('click', act);
  return made;
}

/** Change the text of an element if it is another: a screen reader reads out what is set. */
export function setText(changed, text) {
  if (changed.textContent !== text) {
    changed.textContent = text;
  }
}
