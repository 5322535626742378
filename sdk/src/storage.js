import { guard } from './safe.js';

/**
 * Texts that the browser does not store for us, and those that the page itself must not be able to clear.
 *
 * @type {Record<string, string>}
 */
const memory = {};

/** Returns the text; null or undefined where there is none. */
export const read = guard((/** @type {string} */ key) => memory[key] || localStorage.getItem(key));

/**
 * @param {string} key
 * @param {string | number} text
 * @param {boolean} [keep] In memory too.
 */
export const write = (key, text, keep) => {
  memory[key] = '' + text;
  try {
    localStorage.setItem(key, memory[key]);
    if (!keep) delete memory[key];
  } catch (error) {}
};

export const remove = guard((/** @type {string} */ key) => {
  delete memory[key];
  localStorage.removeItem(key);
});

/**
 * Returns the keys with that prefix in order.
 *
 * @param {string} prefix
 */
export const keys = (prefix) =>
  [...new Set([...inMemory(), ...(guard(() => Object.keys(localStorage))() || [])])]
    .filter((key) => key.startsWith(prefix))
    .sort();

export const inMemory = () => Object.keys(memory);
