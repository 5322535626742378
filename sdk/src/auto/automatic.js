import { guard } from '../safe.js';
import { settings } from '../settings.js';
import { clicks } from './clicks.js';
import { errors } from './errors.js';
import { forms } from './forms.js';
import { leaving } from './leaving.js';
import { links } from './links.js';
import { views } from './views.js';

/**
 * Starts each kind of automatic event that has not been started, by its name in the option `auto`.
 *
 * @type {Record<string, () => void>}
 */
const KINDS = { leave: leaving, page: views, links, clicks, forms, errors };

/** Starts the kinds that the option asks for. */
export const automatic = /* @__PURE__ */ guard(() => {
  for (const [name, start] of Object.entries(KINDS)) {
    if (settings.auto === true || /** @type {string[]} */ (settings.auto).includes(name)) {
      delete KINDS[name];
      start();
    }
  }
});
