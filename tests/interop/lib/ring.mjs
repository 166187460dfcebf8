// Faye clients in a ring: each publishes on a channel of its own, and is subscribed to those of the
// two before it. Every other one uses WebSocket, so each hears both kinds.

import assert from 'node:assert/strict';
import { openFayeClient } from './faye-client.mjs';
import { assertSequence, numbers } from './sequence.mjs';
import { until, within } from './wait.mjs';

/** Generous: Faye's client tries again after 5 s, and machines are busy. */
const SETTLED_MS = 30_000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export async function openRing(t, url, base, size, { steady = true } = {}) {
  const members = await Promise.all(
    numbers(size).map(async (i) => {
      const transport = i % 2 ? 'long-polling' : 'websocket';
      const { client, wire } = await openFayeClient(t, url, transport, { steady });
      const channel = `${base}/${i}`;
      const hears = [1, 2].map((n) => `${base}/${(i + size - n) % size}`);
      await within(Promise.all(hears.map((name) => client.subscribe(name, () => {}))), 'two subscriptions');
      return { name: `${channel} (${transport})`, client, wire, channel, hears, published: 0, refused: [] };
    }),
  );
  return new Ring(members);
}

class Ring {
  constructor(members) {
    this.members = members;
  }

  /**
   * Every member publishes the next number, waits for the acknowledgement and pauses, until
   * `enough(member)`: so each channel has an order, also when a client repeats what was not answered.
   */
  async publish(pauseMs, enough) {
    await this.#each(async (member) => {
      while (!enough(member)) {
        const publication = member.client.publish(member.channel, member.published);
        await within(publication, `an acknowledgement for ${member.name}`, SETTLED_MS).catch((error) => {
          member.refused.push(`${member.published}: ${error.message}`);
        });
        member.published += 1;
        await pause(pauseMs);
      }
    });
  }

  /** Waits until every member has heard `count` messages more on each of its channels. */
  async hears(count) {
    const heard = this.members.map(({ wire, hears }) => hears.map((channel) => wire.data(channel).length));
    await this.#each(({ name, wire, hears }, i) =>
      until(
        `${count} more messages on each channel that ${name} hears`,
        () => hears.every((channel, n) => wire.data(channel).length >= heard[i][n] + count),
        { ms: SETTLED_MS, seen: () => hears.map((channel) => [channel, wire.data(channel).slice(-10)]) },
      ),
    );
  }

  /** Waits until every member has sat out a connect without a message. */
  sitOut() {
    return this.#each(({ wire }) => wire.sitOut());
  }

  /**
   * Everything that was published was acknowledged, and comes to each member in order. Gives how many
   * messages came more than once.
   */
  async assertServed() {
    for (const { name, refused } of this.members) assert.deepEqual(refused, [], `publishes of ${name} that failed`);
    const published = Object.fromEntries(this.members.map((member) => [member.channel, member.published]));
    let repeated = 0;
    await this.#each(async ({ name, wire, hears }) => {
      for (const channel of hears) {
        const expected = numbers(published[channel]);
        const distinct = () => [...new Set(wire.data(channel))];
        // Not an error: what is missing is told below.
        await until('all messages', () => distinct().length >= expected.length, { ms: SETTLED_MS }).catch(() => {});
        assertSequence(distinct(), expected, `messages of ${channel} for ${name}`);
        repeated += wire.data(channel).length - expected.length;
      }
    });
    return repeated;
  }

  /** Nobody was ever told that its session is unknown, and nobody needed a second one. */
  assertSessionsLived() {
    for (const { name, wire } of this.members) {
      assert.deepEqual(wire.received.filter((m) => m.error?.startsWith('401')), [], `replies to ${name}`);
      const handshakes = wire.sent.filter((m) => m.channel === '/meta/handshake').length;
      assert.equal(handshakes, 1, `handshakes of ${name}`);
    }
  }

  #each(act) {
    return Promise.all(this.members.map(act));
  }
}
