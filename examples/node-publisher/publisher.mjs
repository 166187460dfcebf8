// Publishes with Faye's own client, as it comes from npm: each line of standard input, or on a terminal (or with
// --tick) a message every second. A line that is JSON is published as such, any other as text.
//
//   node publisher.mjs --channel /chat/lobby --tick
//   tail -f access.log | node publisher.mjs --channel /logs/access

import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import faye from 'faye';

const { values } = parseArgs({
  options: {
    url: { type: 'string', default: 'http://127.0.0.1:8000/bayeux' },
    channel: { type: 'string', default: '/chat/lobby' },
    tick: { type: 'boolean', default: process.stdin.isTTY ?? false },
  },
});

const client = new faye.Client(values.url);

function parsed(line) {
  try {
    return JSON.parse(line);
  } catch {
    return line;
  }
}

async function* lines() {
  for await (const line of createInterface({ input: process.stdin })) if (line) yield parsed(line);
}

async function* ticks() {
  for (let tick = 1; ; tick++) {
    yield { name: 'publisher', text: `tick ${tick}` };
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

let published = 0;
try {
  // One after the other: the promise is kept when the message is stored, so order and pace are the server's. While it
  // is away, the client tries again by itself, and what it sends again is stored once.
  for await (const message of values.tick ? ticks() : lines()) {
    await client.publish(values.channel, message);
    published++;
    if (values.tick) console.log(`published ${JSON.stringify(message)}`);
  }
  console.log(`published ${published} to ${values.channel}`);
} catch (error) {
  console.error(`not published: ${error.message}`);
  process.exitCode = 1;
}
await client.disconnect();
// The standard input may still be open, and would keep the program alive.
process.exit();
