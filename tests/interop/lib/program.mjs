// A program that a test starts: it never outlives this process, and a failing test shows what it logged.

import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { until, within } from './wait.mjs';

const LOG_TAIL = 20_000;

// Told to end early, this process ends by way of its `exit` event.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

/**
 * Starts `program` with the arguments that `argumentsFor` gives for a scratch directory, and waits
 * until it has written `readyFile` there. Resolves with
 *  - `ready`: what the file says
 *  - `scratch`: the directory; files there that are called `*.log` are shown when a test fails
 *  - `stop(ms)`: ends it by SIGTERM, and fails if it did not end well and in time
 */
export async function startProgram(program, argumentsFor, readyFile, startupMs) {
  const scratch = await mkdtemp(join(tmpdir(), 'weft-interop-'));
  // Weft reads its configuration from WEFT_* too, and a test decides all of it by arguments.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('WEFT_')));
  // Should this process be killed without a word, the kernel kills the program too.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', program, ...argumentsFor(scratch)], {
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });

  let log = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => (log += text));
  }
  // Settles even if the program cannot be started at all.
  const ended = new Promise((resolve) => {
    child.once('error', (error) => resolve(`could not be started: ${error.message}`));
    child.once('close', (code, signal) => resolve(signal ? `killed by ${signal}` : `exit code ${code}`));
  });
  let end = null;
  ended.then((how) => (end = how));

  // The logs in the directory, kept when it goes.
  let kept = {};
  const cleanUp = async () => {
    kept = logsIn(scratch);
    await rm(scratch, { recursive: true, force: true, maxRetries: 10 });
  };
  process.once('exit', (code) => {
    if (end === null) child.kill('SIGKILL');
    // A failing test seldom tells what the server thought of it.
    if (code !== 0) show({ [program]: log, ...kept, ...logsIn(scratch) });
    rmSync(scratch, { recursive: true, force: true, maxRetries: 10 });
  });

  const ready = await until(
    `${readyFile} of ${program}`,
    async () => {
      if (end !== null) throw new Error(`${program} ended before it was ready (${end}):\n${log}`);
      // Missing or half written: look again.
      return readFile(join(scratch, readyFile), 'utf8').then(JSON.parse).catch(() => null);
    },
    { ms: startupMs, seen: () => log },
  ).catch(async (error) => {
    child.kill('SIGKILL');
    await cleanUp();
    throw error;
  });

  return {
    ready,
    scratch,
    async stop(ms) {
      child.kill('SIGTERM');
      const how = await within(ended, `${program} to stop after SIGTERM`, ms).finally(cleanUp);
      if (how !== 'exit code 0') throw new Error(`expected ${program} to stop with exit code 0, got ${how}:\n${log}`);
    },
  };
}

function show(logs) {
  for (const [name, text] of Object.entries(logs)) {
    console.error(`--- log of ${name}:\n${text.slice(-LOG_TAIL) || '(nothing)'}\n---`);
  }
}

function logsIn(directory) {
  try {
    const names = readdirSync(directory).filter((name) => name.endsWith('.log'));
    return Object.fromEntries(names.map((name) => [name, readFileSync(join(directory, name), 'utf8')]));
  } catch {
    return {}; // it is gone
  }
}
