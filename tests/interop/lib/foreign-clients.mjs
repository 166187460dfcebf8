// The clients in other languages: how each is started, and what it cannot do by itself.

import { fileURLToPath } from 'node:url';

const path = (relative) => fileURLToPath(new URL(`../../../${relative}`, import.meta.url));
const built = (name) => path(`target/foreign/${name}`);
const source = (name) => path(`tests/interop/foreign/${name}`);

const NO_EXTENSIONS = {
  ack: 'the library has no extension for acknowledged messages',
  timesync: 'the library has no extension for the time of the server',
  call: 'the library has no remote calls',
};

/**
 * `cannot` gives the reasons for which tests are skipped or ask for less; a reason may hold for one transport only.
 * Beyond that:
 *  - `callbacks`: each subscription has its own; else all messages come in one stream, each once
 *  - `resubscribes`: after another handshake the library subscribes again by itself; else its user must
 *  - `obeysNone`: the library stops for good when it is told `reconnect: none`; else it tries again
 *  - `silent`: the library tells neither of its session's id nor of its subscriptions; the wire does
 */
export const CLIENTS = [
  {
    name: 'cometd java',
    mount: '/cometd',
    transports: ['websocket', 'long-polling'],
    // A JVM that lives for seconds is better off without its best compiler and collector.
    command: [
      'java',
      ...['-XX:TieredStopAtLevel=1', '-XX:+UseSerialGC'],
      ...['-cp', `${built('java/cometd-java-driver-1.jar')}:${built('java/lib/*')}`],
      'Driver',
    ],
    callbacks: true,
    cannot: {
      nested: {
        'long-polling': 'the parser of the library fails on a list in a list, and asks for the same reply for ever',
      },
    },
  },
  {
    name: 'aiocometd',
    mount: '/cometd',
    transports: ['websocket', 'long-polling'],
    command: [built('python/bin/python'), source('python/aiocometd_driver.py')],
    resubscribes: true,
    cannot: {
      batch: 'the library sends each message by itself',
      repeat: {
        'long-polling': 'the library repeats a connect under a new id, and so confirms what it has not got',
      },
      ...NO_EXTENSIONS,
    },
  },
  {
    name: 'python-bayeux',
    mount: '/cometd',
    transports: ['long-polling'],
    command: [built('python/bin/python'), source('python/python_bayeux_driver.py')],
    callbacks: true,
    cannot: {
      wildcards: 'the library looks its callbacks up by the channel of the message, and fails if it has none',
      batch: 'the library sends each message by itself',
      reconnect: 'the library gives up when a connection breaks',
      repeat: 'the library gives up when a connection breaks',
      rehandshake: 'the library takes no error but "403::Unknown client" for the end of its session',
      promptDisconnect: 'the library waits for the end of its held connect before it disconnects',
      ...NO_EXTENSIONS,
    },
  },
  {
    name: 'faye ruby',
    mount: '/bayeux',
    transports: ['websocket', 'long-polling'],
    command: ['ruby', source('ruby/driver.rb')],
    callbacks: true,
    resubscribes: true,
    obeysNone: true,
    cannot: NO_EXTENSIONS,
  },
  {
    name: 'cometd-client rust',
    mount: '/cometd',
    transports: ['long-polling'],
    command: [built('rust/debug/weft-interop-cometd-client')],
    silent: true,
    cannot: {
      publish: 'the library cannot publish',
      unsubscribe: 'the library cannot unsubscribe',
      batch: 'the library cannot publish',
      reconnect: 'the library gives up when a connection breaks',
      repeat: 'the library gives up when a connection breaks',
      ...NO_EXTENSIONS,
    },
  },
];
