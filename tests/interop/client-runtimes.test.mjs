// Weft's JavaScript client in Deno and Bun: a program of each, over each transport, whose connection is cut. Deno loads the
// client from the node, as a browser would; Bun from a file.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startCuttingProxy } from './lib/cutting-proxy.mjs';
import { numbers } from './lib/sequence.mjs';
import { REFERENCE, startServer } from './lib/server.mjs';
import { until, within } from './lib/wait.mjs';
import { TRANSPORTS } from './lib/weft-client.mjs';

const file = (path) => fileURLToPath(new URL(path, import.meta.url));
const RUNTIMES = {
  deno: {
    command: [file('node_modules/.bin/deno'), 'run', '--quiet', '--no-config', '--allow-net', '--allow-import'],
    client: (server) => `${server.url}/client.mjs`,
  },
  bun: { command: [file('node_modules/.bin/bun'), 'run'], client: () => file('../../browser/dist/weft.mjs') },
};

let server;
const skip = REFERENCE && 'Deno loads the client from the node';
before(async () => {
  if (!skip) server = await startServer('/bayeux');
});
after(() => server?.stop());

for (const [runtime, { command, client }] of Object.entries(RUNTIMES)) {
  describe(runtime, { skip }, () => {
    for (const transport of TRANSPORTS) {
      test(`over ${transport}: in order, each once, across a cut; ends by itself`, async (t) => {
        const proxy = await startCuttingProxy(server.origin);
        t.after(() => proxy.stop());
        const url = server.url.replace(server.origin, proxy.origin);
        const words = [...command.slice(1), file('lib/runtime-program.mjs'), client(server), url, transport];
        const program = spawn(command[0], words, { env: { ...process.env, NO_COLOR: '1' }, detached: true });
        let [output, errors] = ['', ''];
        program.stdout.setEncoding('utf8').on('data', (text) => (output += text));
        program.stderr.setEncoding('utf8').on('data', (text) => (errors += text));
        let running = true;
        const closed = once(program, 'close').finally(() => (running = false));
        t.after(async () => {
          if (running) process.kill(-program.pid, 'SIGKILL');
          await closed;
        });
        const seen = () => output + errors;
        await until('the program is connected', () => output.includes('ready'), { seen });
        proxy.cut();
        program.stdin.end('go');
        await until('the program has published', () => output.includes('published'), { seen });
        proxy.mend();
        const [code] = await within(closed, 'the program to end').catch((error) => assert.fail(`${error.message}: ${seen()}`));
        assert.equal(code, 0, seen());
        const lines = output.trim().split('\n');
        // A runtime may send a request again by itself when its connection is closed.
        assert.ok(lines.includes('resumed') || transport === 'long-polling', seen());
        assert.ok(!lines.includes('gap'), seen());
        assert.deepEqual(JSON.parse(lines.find((line) => line.startsWith('['))), numbers(40), seen());
        assert.ok(lines.includes('cancelled') && lines.at(-1) === 'disconnected', seen());
      });
    }
  });
}
