import { automatic } from './auto/automatic.js';
import { commands } from './commands.js';

export const { init, page, track, set, identify, consent, reset, flush } = commands(automatic);
