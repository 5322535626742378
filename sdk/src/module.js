import { commands } from './commands.js';
import { guard } from './safe.js';
import { debug } from './tell.js';

debug.load = () => import('./sluice.debug.js');

export const init = guard(commands.init);
export const page = guard(commands.page);
export const track = guard(commands.track);
export const set = guard(commands.set);
export const identify = guard(commands.identify);
export const consent = guard(commands.consent);
export const reset = guard(commands.reset);
export const flush = guard(commands.flush);
