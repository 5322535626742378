import { settings } from '../settings.js';
import { clicks } from './clicks.js';
import { errors } from './errors.js';
import { forms } from './forms.js';
import { leaving } from './leaving.js';
import { links } from './links.js';
import { views } from './views.js';

/** Starts each kind of automatic event, by its name in the option `auto`. */
const KINDS = { leave: leaving, page: views, links, clicks, forms, errors };

/** Starts the kinds that the option asks for; throws if there is no such option. */
export const automatic = () => {
  for (const [name, start] of Object.entries(KINDS)) {
    if (settings.auto === true || /** @type {string[]} */ (settings.auto).includes(name)) start();
  }
};
