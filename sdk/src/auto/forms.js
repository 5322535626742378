import { notice } from '../events.js';
import { on } from '../safe.js';

/** Records that a form is submitted and which one, never what was filled in. */
export const forms = () =>
  on(window, 'submit', ({ target }) => {
    const form = /** @type {HTMLFormElement} */ (target);
    // Not form.id: a field of that name would stand there.
    const [id, name, action] = ['id', 'name', 'action'].map((attribute) => form.getAttribute(attribute));
    notice('submit', { form: id || name, action });
  });
