import { guard } from './safe.js';

/**
 * Texts that the browser could not store, and this page's batches, so that a page that clears its storage loses none. They last
 * as long as the page.
 *
 * @type {Record<string, string>}
 */
export const memory = {};

/** Returns the text that the browser has stored, or null or undefined if there is none. */
export const stored = guard((/** @type {string} */ key) => localStorage.getItem(key));

/** Returns the text, or undefined if there is none. @param {string} key */
export const read = (key) => stored(key) || memory[key];

export const remove = guard((/** @type {string} */ key) => {
  delete memory[key];
  localStorage.removeItem(key);
});

/**
 * @param {string} key
 * @param {string | number} text
 * @param {boolean} [keep] Whether to keep the text in memory even if the browser stores it.
 */
export const write = (key, text, keep) => {
  try {
    localStorage.setItem(key, '' + text);
    delete memory[key];
    if (!keep) return;
  } catch (error) {
    remove(key); // an older stored text would hide the new one
  }
  memory[key] = '' + text;
};

/** Returns all keys, possibly with duplicates. */
export const keys = () => Object.keys(memory).concat(guard(() => Object.keys(localStorage))() || []);

/**
 * Forgets a text that another page has deleted. That a page cleared the whole storage has no key, so nothing is forgotten.
 *
 * @param {StorageEvent} event
 */
export const forgetDeleted = ({ key, newValue }) => {
  if (!newValue) delete memory[/** @type {string} */ (key)];
};
