/**
 * Makes a function that never throws: nothing of ours may break the page.
 *
 * @template {unknown[]} A
 * @template R
 * @param {(...args: A) => R} run
 * @returns {(...args: A) => R | undefined} Returns undefined where `run` throws.
 */
export const guard = (run) => (...args) => {
  try {
    return run(...args);
  } catch (error) {}
};

/**
 * Listens before the page's own listeners can stop an event.
 *
 * @template {Event} E
 * @param {EventTarget} target
 * @param {string} type
 * @param {(event: E) => unknown} run
 */
export const on = (target, type, run) => target.addEventListener(type, guard(/** @type {(event: Event) => unknown} */ (run)), true);
