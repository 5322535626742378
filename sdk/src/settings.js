/**
 * The options passed to `init`; empty before that.
 *
 * @type {Partial<import('./sluice').Options>}
 */
export const settings = {};

/**
 * Returns a storage key with the account, so that accounts on one origin are separate.
 *
 * @param {string} name
 */
export const keyOf = (name) => 'sluice.' + ('' + settings.key).split('.')[0] + '.' + name;
