// Clients in other languages. Each is driven by a small program in foreign/ that takes commands as JSON lines on stdin
// and answers on stdout, where it also tells what its client hears.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { until, within } from './wait.mjs';

// A JVM on a busy machine.
const STARTUP_MS = 30_000;
const COMMAND_MS = 10_000;
const EXIT_MS = 10_000;
const LOG_TAIL = 10_000;

/** Starts the driver of `client` (see foreign-clients.mjs). It never outlives this process. */
export async function startDriver(client) {
  const [program, ...words] = client.command;
  // Should this process be killed without a word, the kernel kills the driver too.
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', program, ...words], { stdio: ['pipe', 'pipe', 'pipe'] });

  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text) => (log += text));
  const ended = new Promise((resolve) => {
    child.once('error', (error) => resolve(`could not be started: ${error.message}`));
    child.once('close', (code, signal) => resolve(signal ? `killed by ${signal}` : `exit code ${code}`));
  });
  let end = null;
  process.once('exit', (code) => {
    if (end === null) child.kill('SIGKILL');
    if (code !== 0 && log) console.error(`--- stderr of the driver of ${client.name}:\n${log.slice(-LOG_TAIL)}\n---`);
  });
  // It may have ended before it has read all.
  child.stdin.on('error', () => {});

  const waiting = new Map();
  const sessions = new Map();
  ended.then((how) => {
    end = how;
    for (const { reject } of waiting.values()) reject(new Error(`the driver of ${client.name} ended: ${how}\n${log}`));
  });

  let ready;
  const isReady = new Promise((resolve) => (ready = resolve));
  createInterface({ input: child.stdout }).on('line', (text) => {
    const line = JSON.parse(text);
    if (line.event === 'ready') return ready();
    if (line.event) return sessions.get(line.client).tell(line);
    const command = waiting.get(line.tag);
    waiting.delete(line.tag);
    if (line.ok) command.resolve(line);
    else command.reject(new Error(`${client.name}: ${command.what}: ${line.error}`));
  });

  let tag = 0;
  function command(words) {
    tag += 1;
    const what = JSON.stringify(words).slice(0, 200);
    const answer = new Promise((resolve, reject) => waiting.set(tag, { resolve, reject, what }));
    child.stdin.write(`${JSON.stringify({ tag, ...words })}\n`);
    return within(answer, `an answer of ${client.name} to ${what}`, COMMAND_MS);
  }

  const early = ended.then((how) => {
    throw new Error(`${client.command.join(' ')}: ${how} (has foreign/setup built it?)\n${log}`);
  });
  early.catch(() => {});
  try {
    await within(Promise.race([isReady, early]), `the driver of ${client.name} to start`, STARTUP_MS);
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }

  return {
    /** A client of the library, not yet connected. */
    session(url, transport, { extensions = [] } = {}) {
      const number = sessions.size;
      const session = new Session((words) => command({ client: number, ...words }), { url, transport, extensions });
      sessions.set(number, session);
      return session;
    },
    /** Ends the program, and fails if it does not end well. */
    async stop() {
      child.stdin.end();
      const how = await within(ended, `the driver of ${client.name} to end with its input`, EXIT_MS).catch((error) => {
        child.kill('SIGKILL');
        throw error;
      });
      if (how !== 'exit code 0') throw new Error(`the driver of ${client.name} did not end well: ${how}\n${log}`);
    },
  };
}

class Session {
  /** What the client has heard: `{subscription, channel, data}`. Without callbacks there is no `subscription`. */
  messages = [];
  /** The sessions that the server has given it, as far as the client tells. */
  clientIds = [];
  /** Why the client has given up, if it has. */
  ends = [];
  transport = undefined;
  #command;
  #options;
  #subscriptions = 0;

  constructor(command, options) {
    this.#command = command;
    this.#options = options;
  }

  tell({ event, subscription, channel, data, clientId, transport, error = 'no reason given' }) {
    if (event === 'message') this.messages.push({ subscription, channel, data });
    else if (event === 'handshake') this.clientIds.push(clientId);
    else if (event === 'transport') this.transport = transport;
    else if (event === 'ended') this.ends.push(error);
    else throw new Error(`unknown event ${event}`);
  }

  /** Resolves when the library calls the session usable, with what it tells of the handshake. */
  open() {
    return this.#command({ do: 'open', ...this.#options });
  }

  /** Resolves with the number of the subscription, by which its messages are marked. */
  async subscribe(channel) {
    this.#subscriptions += 1;
    const subscription = this.#subscriptions;
    await this.#command({ do: 'subscribe', subscription, channel });
    return { subscription, channel };
  }

  unsubscribe(subscription) {
    return this.#command({ do: 'unsubscribe', ...subscription });
  }

  /** Resolves when the publish is acknowledged. */
  publish(channel, data) {
    return this.#command({ do: 'publish', channel, data });
  }

  batch(channel, list) {
    return this.#command({ do: 'batch', channel, list });
  }

  async call(target, data) {
    return (await this.#command({ do: 'call', target, data })).data;
  }

  timesync() {
    return this.#command({ do: 'timesync' });
  }

  disconnect() {
    return this.#command({ do: 'disconnect' });
  }

  /** The data of all messages, or of those of one subscription. */
  data(subscription) {
    const own = (m) => subscription === undefined || m.subscription === subscription.subscription;
    return this.messages.filter(own).map((m) => m.data);
  }

  /** Waits until the client has heard this. */
  hears(data) {
    const expected = `a message ${JSON.stringify(data)}`;
    return until(expected, () => this.data().includes(data), { seen: () => [this.data(), this.ends] });
  }
}
