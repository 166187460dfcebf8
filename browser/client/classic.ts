// The classic script: the global `Weft`, and `Faye` for pages that were written for it, unless they load Faye's own client,
// too. In Node it is what `require` gives. `build.mjs` puts the name there.

import * as weft from './index';

const namespace: any = { ...weft };
// As pages set it: `Faye.logger = console.log`.
Object.defineProperty(namespace, 'logger', {
  get: () => weft.logging.logger,
  set: (logger) => weft.setLogger(logger),
  enumerable: true,
});

export default namespace;
