// resume.js by itself: what it sends, what it drops and what it tells, message by message, as CometD's client passes them.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { test } from 'node:test';

const WeftResume = createRequire(import.meta.url)('../../browser/extensions/resume.js');

/** An extension in a session that began at `start`, and what it told. */
function connected(start, options = {}) {
  const told = [];
  const note = (what) => (info) => told.push(info ? [what, info] : what);
  const resume = new WeftResume({ gap: note('gap'), resumed: note('resumed'), stopped: note('stopped'), ...options });
  resume.outgoing({ channel: '/meta/handshake' });
  const reply = { channel: '/meta/handshake', successful: true, ext: { resume: true, position: { 0: start } } };
  resume.incoming(reply);
  return { resume, told, reply };
}

const message = (number, channel = '/a', more = {}) => ({ channel, data: number, ext: { position: { 0: number }, ...more } });
const subscribed = (channel, ext) => ({ channel: '/meta/subscribe', successful: true, subscription: channel, ext });
const isNews = (resume, m) => resume.incoming(m) !== null;

test('what is not newer is dropped', () => {
  const { resume } = connected(10);
  assert.deepEqual([11, 12, 12, 11, 13].map((n) => isNews(resume, message(n))), [true, true, false, false, true]);
});

test('a connect that is sent again much later says where things stand then', () => {
  const { resume } = connected(10);
  const connect = resume.outgoing({ channel: '/meta/connect' });
  resume.incoming(message(11));
  assert.equal(JSON.stringify(connect.ext.position), '{"0":11}');
});

test('what was processed while the handshake was under way counts', () => {
  const { resume, told } = connected(10);
  resume.incoming(subscribed('/a', { since: { '/a': { 0: 5 } } }));
  resume.incoming(message(11));
  const handshake = resume.outgoing({ channel: '/meta/handshake' });
  assert.deepEqual(handshake.ext, { resume: true, position: { 0: 11 }, subscriptions: { '/a': { 0: 5 } } });
  assert.ok(isNews(resume, message(12)), 'a late reply of the session before');
  const ext = { resume: true, position: { 0: 11 }, subscriptions: ['/a'] };
  resume.incoming({ channel: '/meta/handshake', successful: true, ext });
  assert.ok(!isNews(resume, message(12)), 'it comes again');
  assert.deepEqual(told, ['resumed']);
});

test('the newest position stands in the reply that a reload extension keeps', () => {
  const { resume, reply } = connected(10);
  resume.incoming(message(11));
  const { resume: next } = { resume: new WeftResume() };
  next.incoming(JSON.parse(JSON.stringify(reply)));
  assert.ok(!isNews(next, message(11)));
});

test('a subscription that does not go on is a gap, a service channel is not', () => {
  const { resume, told } = connected(10);
  for (const channel of ['/a', '/b', '/service/x']) resume.incoming(subscribed(channel, {}));
  resume.outgoing({ channel: '/meta/handshake' });
  const ext = { resume: true, position: { 0: 10 }, subscriptions: ['/b'] };
  resume.incoming({ channel: '/meta/handshake', successful: true, ext });
  assert.deepEqual(told, [['gap', { channels: ['/a'] }]]);
});

test('a replay has a count of its own, and goes on under a new session', () => {
  const { resume } = connected(50, { replay: { '/a': -2 } });
  const subscribe = resume.outgoing({ channel: '/meta/subscribe', subscription: '/a' });
  assert.deepEqual(subscribe.ext, { resume: true, replay: { '/a': -2 } });
  assert.ok(isNews(resume, message(21, '/a', { replay: true })), 'before the reply');
  resume.incoming(subscribed('/a', { since: { '/a': { 0: 40 } }, replay: { '/a': 20 } }));
  assert.deepEqual([21, 22].map((n) => isNews(resume, message(n, '/a', { replay: true }))), [false, true]);
  const handshake = resume.outgoing({ channel: '/meta/handshake' });
  assert.deepEqual(handshake.ext.subscriptions, { '/a': { 0: 40, replay: 22 } });
  const ext = { resume: true, position: { 0: 50 }, subscriptions: ['/a'] };
  resume.incoming({ channel: '/meta/handshake', successful: true, ext });
  assert.ok(!isNews(resume, message(22, '/a', { replay: true })));
  const again = resume.outgoing({ channel: '/meta/subscribe', subscription: '/a' });
  assert.deepEqual(again.ext, { resume: true }, 'it does not ask for what goes on');
});

test('of a list that was refused in part it knows what was not', () => {
  const { resume } = connected(10);
  const refused = { channel: '/meta/subscribe', successful: false, subscription: ['/a', '/b'] };
  resume.incoming({ ...refused, ext: { since: { '/a': { 0: 9 } } } });
  assert.deepEqual(Object.keys(resume.outgoing({ channel: '/meta/handshake' }).ext.subscriptions), ['/a']);
});

test('a gap, and the end, are told', () => {
  const { resume, told } = connected(10);
  resume.incoming({ channel: '/meta/connect', successful: true, ext: { gap: true, position: { 0: 20 } } });
  assert.ok(!isNews(resume, message(20)) && isNews(resume, message(21)));
  resume.incoming({ channel: '/meta/connect', successful: true, advice: { reconnect: 'none' } });
  assert.deepEqual(told, [['gap', {}], 'stopped']);
});

test('a gap that is told twice is one', () => {
  const { resume, told } = connected(10);
  const gap = (lost, position) =>
    resume.incoming({ channel: '/meta/connect', successful: true, ext: { gap: true, ...lost, position } });
  const upto = (number) => ({ lost: { 0: number } });
  // By a poll's reply, with the messages that are left, and by the stream that took the poll's place.
  gap(upto(18), { 0: 20 });
  resume.incoming(message(21));
  gap(upto(18), { 0: 20 });
  assert.deepEqual(told, [['gap', {}]]);
  // More is missing, although what is left begins at the same place.
  gap(upto(19), { 0: 20 });
  assert.equal(told.length, 2);
  // Where messages come before their reply, the position is past it already.
  resume.incoming(message(31));
  gap(upto(28), { 0: 30 });
  assert.equal(told.length, 3);
  // That of a replay does not say.
  gap({}, {});
  gap({}, {});
  assert.equal(told.length, 5);
  // The claim of a handshake that was under way.
  resume.outgoing({ channel: '/meta/handshake' });
  gap(upto(40), { 0: 40 });
  const begin = (number) =>
    resume.incoming({ channel: '/meta/handshake', successful: true, ext: { resume: true, position: { 0: number } } });
  begin(31);
  gap(upto(40), { 0: 40 });
  assert.equal(told.length - told.filter((what) => what === 'resumed').length, 6);
  // A server that begins anew, lower.
  resume.outgoing({ channel: '/meta/handshake' });
  begin(5);
  gap(upto(15), { 0: 20 });
  assert.equal(told.length - told.filter((what) => what === 'resumed').length, 7);
});

test('a server that does not know it is left alone', () => {
  const resume = new WeftResume();
  resume.outgoing({ channel: '/meta/handshake' });
  resume.incoming({ channel: '/meta/handshake', successful: true });
  assert.equal(resume.outgoing({ channel: '/meta/connect' }).ext, undefined);
  assert.ok(isNews(resume, message(1)) && isNews(resume, message(1)));
});
