/**
 * What `init` was told; empty before.
 *
 * @type {Partial<import('./sluice').Options>}
 */
export const settings = {};

/**
 * Returns the key under which something is stored: accounts on one origin do not meet.
 *
 * @param {string} name
 */
export const keyOf = (name) => `sluice.${('' + settings.key).split('.')[0]}.${name}`;
