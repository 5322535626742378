import { notice } from '../events.js';
import { on } from '../safe.js';

/** Records which form is submitted, never what was filled in. */
export const forms = () =>
  on(window, 'submit', ({ target }) => {
    const form = /** @type {HTMLFormElement} */ (target);
    // Not form.id: that is the field named `id`, if the form has one.
    const [id, name, action] = ['id', 'name', 'action'].map((attribute) => form.getAttribute(attribute));
    notice('submit', { form: id || name, action });
  });
