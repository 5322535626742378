import { notice } from '../events.js';
import { on } from '../safe.js';

/** Records which form is submitted, never what was filled in. */
export const forms = () =>
  on(window, 'submit', ({ target }) => {
    // Not form.id: that is the field named `id`, if the form has one.
    const of = (/** @type {string} */ name) => /** @type {HTMLFormElement} */ (target).getAttribute(name);
    notice('submit', { form: of('id') || of('name'), action: of('action') });
  });
