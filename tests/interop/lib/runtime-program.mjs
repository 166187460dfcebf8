// What a program in another runtime does with Weft's client; run by client-runtimes.test.mjs with the address of the client,
// that of the server, and a transport. A line for each thing that happened. `ready` asks for the connection to be cut and then for
// input, `published` for its return.

import process from 'node:process';

const { Client } = await import(process.argv[2]);
const [url, transport] = process.argv.slice(3);
const client = new Client(url, { transports: [transport], backoff: { first: 20, max: 200 } });
for (const name of ['connected', 'resumed', 'gap', 'stopped']) client.on(name, () => console.log(name));
const connected = new Promise((done) => client.once('connected', done));
const channel = `/runtimes/${transport}`;
const subscription = client.subscribe(`${channel}/*`);
await Promise.all([subscription, connected]);
const numbers = [];
const reading = Promise.withResolvers();
const all = (async () => {
  for await (const { data } of subscription) {
    numbers.push(data.number);
    reading.resolve();
    if (numbers.length === 40) break;
  }
})();
for (let number = 0; number < 40; number++) {
  if (number === 20) {
    // What carries events is open: a runtime sends the request for it again by itself if it is cut before that.
    await reading.promise;
    console.log('ready');
    await new Promise((go) => process.stdin.once('data', go));
    process.stdin.destroy();
  }
  void client.publish(`${channel}/${number % 3}`, { number, text: 'hëllo ☃' });
}
console.log('published');
await all;
console.log(JSON.stringify(numbers));
const aborted = new AbortController();
const refused = client.publish(channel, 1, { signal: aborted.signal });
aborted.abort();
console.log(await refused.then(() => 'stored', (error) => error.code));
await client.disconnect();
console.log('disconnected');
// Nothing of the client may keep the runtime alive from here on.
