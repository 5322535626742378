import { commands } from './commands.js';
import { install } from './install.js';
import { guard } from './safe.js';

guard(() => install(commands))();
