import { guard } from './safe.js';

/**
 * Texts that the browser could not store; they last as long as the page.
 *
 * @type {Record<string, string>}
 */
const memory = {};

/** Returns the text, or null or undefined if there is none. */
export const read = guard((/** @type {string} */ key) => memory[key] || localStorage.getItem(key));

export const remove = guard((/** @type {string} */ key) => {
  delete memory[key];
  localStorage.removeItem(key);
});

/**
 * @param {string} key
 * @param {string | number} text
 * @param {boolean} [only] If this text cannot be stored, delete an older one.
 */
export const write = (key, text, only) => {
  try {
    localStorage.setItem(key, '' + text);
    delete memory[key];
  } catch (error) {
    if (only) remove(key);
    memory[key] = '' + text;
  }
};

/**
 * Returns whether a text exists only in this page's memory.
 *
 * @param {string} key
 */
export const isVolatile = (key) => key in memory;

/** Returns all keys, possibly with duplicates. */
export const keys = () => Object.keys(memory).concat(guard(() => Object.keys(localStorage))() || []);
