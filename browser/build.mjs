// Builds dist/ from client/: a classic script, an ES module and its typings. With --check it builds into memory and fails
// if dist/ is not what comes out. Run by `npm run build` and `npm run check`.

import { readFile, mkdir, writeFile, rm, readdir } from 'node:fs/promises';
import { execFileSync } from 'node:child_process';
import { brotliCompressSync, brotliDecompressSync, constants, gunzipSync, gzipSync } from 'node:zlib';
import { fileURLToPath } from 'node:url';
import path from 'node:path';
import { build } from 'esbuild';

const LARGEST = 12 * 1024; // compressed
const here = path.dirname(fileURLToPath(import.meta.url));
const dist = path.join(here, 'dist');
const common = { bundle: true, minify: true, write: false, target: 'es2019', legalComments: 'none', charset: 'utf8' };
const banner = { js: "/* Weft's client (Apache-2.0) */" };

/** Puts what `classic.ts` exports where it belongs. */
const classic = {
  globalName: 'W',
  banner: { js: `${banner.js}(function(){` },
  footer: {
    js: 'W=W.default;if(typeof module=="object"&&module.exports)module.exports=W;else{globalThis.Weft=W;globalThis.Faye=globalThis.Faye||W}})();',
  },
};

async function script(entry, format, more = { banner }) {
  const result = await build({ ...common, ...more, format, entryPoints: [path.join(here, 'client', entry)] });
  return result.outputFiles[0].text;
}

/** One file of declarations, each module's in the order of its imports. */
async function typings() {
  const folder = path.join(here, 'node_modules', '.typings');
  await rm(folder, { recursive: true, force: true });
  const tsc = path.join(here, 'node_modules', '.bin', 'tsc');
  const flags = ['--declaration', '--emitDeclarationOnly', '--noEmit', 'false', '--rootDir', path.join(here, 'client'), '--stripInternal', '--outDir', folder];
  execFileSync(tsc, ['--project', path.join(here, 'tsconfig.json'), ...flags], { stdio: 'inherit' });
  const order = ['message', 'error', 'events', 'deferred', 'extensions', 'scheduler', 'options', 'publication', 'subscription', 'client', 'index'];
  const parts = [];
  for (const name of order) {
    const text = await readFile(path.join(folder, `${name}.d.ts`), 'utf8');
    parts.push(
      text
        .replace(/^import .*;\n/gm, '')
        .replace(/^export (type )?\{[^}]*\}( from .*)?;\n/gm, '')
        .replace(/^    private .*;\n/gm, '')
        .replace(/import\("[^"]*"\)\./g, ''),
    );
  }
  return `// The typings of Weft's client.\n\n${parts.join('\n')}\nexport { BayeuxError as Error };\n`;
}

const files = {
  'weft.js': await script('classic.ts', 'iife', classic),
  'weft.mjs': await script('index.ts', 'esm'),
  'weft.d.ts': await typings(),
};

/** What a server sends to those who take it. Made here, so that the server needs nothing for it. */
const COMPRESSED = {
  gz: [(bytes) => gzipSync(bytes, { level: 9 }), gunzipSync],
  br: [(bytes) => brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }), brotliDecompressSync],
};

const compressed = {};
for (const [name, text] of Object.entries(files)) {
  if (!/js$/.test(name)) continue;
  const sizes = Object.entries(COMPRESSED).map(([kind, [compress]]) => {
    const bytes = (compressed[`${name}.${kind}`] = compress(Buffer.from(text)));
    if (bytes.length > LARGEST) throw new Error(`${name}.${kind} is too large: ${bytes.length} bytes`);
    return `${kind} ${bytes.length}`;
  });
  console.log(`${name}: ${text.length} bytes, ${sizes.join(', ')} (at most ${LARGEST})`);
}

if (process.argv.includes('--check')) {
  const read = (name) => readFile(path.join(dist, name)).catch(() => Buffer.of());
  const wrong = (name) => {
    throw new Error(`dist/${name} is not what the source gives: run npm run build`);
  };
  for (const [name, text] of Object.entries(files)) if ((await read(name)).toString() !== text) wrong(name);
  for (const name of Object.keys(compressed)) {
    // Another version of the compressor may give other bytes for the same text.
    const [, plain, kind] = /^(.*)\.(gz|br)$/.exec(name);
    let text = '';
    try {
      text = COMPRESSED[kind][1](await read(name)).toString();
    } catch {}
    if (text !== files[plain]) wrong(name);
  }
  const extra = (await readdir(dist)).filter((name) => !(name in files) && !(name in compressed));
  if (extra.length > 0) throw new Error(`dist/ holds more: ${extra}`);
  console.log('dist/ is true to its source');
} else {
  await mkdir(dist, { recursive: true });
  for (const [name, bytes] of Object.entries({ ...files, ...compressed })) await writeFile(path.join(dist, name), bytes);
}
