import { commands } from './commands.js';
import { install } from './install.js';
import { guard } from './safe.js';
import { debug } from './tell.js';

if (FULL) {
  guard(() => {
    const { src } = /** @type {HTMLScriptElement} */ (document.currentScript);
    debug.load = () =>
      document.head.append(
        Object.assign(document.createElement('script'), {
          src: src.replace(/[^/]*$/, 'sluice.debug.js'),
          integrity: DEBUG_INTEGRITY,
          crossOrigin: '',
        }),
      );
  })();
}
guard(() => install(commands))();
